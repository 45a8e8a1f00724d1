"""The network: SFIIN, the spectrum that it is built upon, its checkpoints, and learned baselines."""
