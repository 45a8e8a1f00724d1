"""How good a network is: scores beside other methods, ablations, reports."""
