"""Pairs of PAN and MS to train on and to judge by, and the sensors that they are of."""
