"""The commands of the training side: train, ablate, import, evaluate."""
