"""Weights of samples, learned from a trusted set."""
