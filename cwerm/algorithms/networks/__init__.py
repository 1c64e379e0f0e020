"""Backbones and classifiers: timm and the networks of the paper, and files of weights."""
