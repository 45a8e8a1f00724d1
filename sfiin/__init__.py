"""The network and the measures it is judged by: spectrum, training, metrics, degradation, baselines."""
