"""Classifiers of feature vectors."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["HEADS", "make_head"]

HIDDEN = 512  # units of the hidden layer

HEADS = ("linear", "mlp")


def make_head(name: str, width: int, num_classes: int, seed: int = 0) -> nn.Module:
    """A freshly initialised classifier of vectors of ``width`` numbers, the same for a seed.

    ``linear`` is one layer, ``mlp`` has a hidden layer of 512 ReLUs before it. `ValueError` for another name.
    """
    if name not in HEADS:
        raise ValueError(f"unknown head '{name}'; choose one of {', '.join(HEADS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "linear":
            return nn.Linear(width, num_classes)
        return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, num_classes))
