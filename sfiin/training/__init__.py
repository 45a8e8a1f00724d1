"""How the weights are found: the loss and the loop."""
