"""Classifiers on features that several methods of the study share."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["folds", "linear_head", "logits", "mean_over_epochs", "standardised"]

HIDDEN, EPOCHS, BATCH, LEARNING_RATE = 256, 10, 128, 0.05

Head = tuple[Tensor, Tensor]


def standardised(features: np.ndarray) -> Tensor:
    """Each column with mean 0 and deviation 1; float32 [n, d]."""
    centred = features - features.mean(axis=0)
    scale = np.maximum(centred.std(axis=0), 1e-6)
    return torch.from_numpy((centred / scale).astype(np.float32))


def folds(labels: np.ndarray, number: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of each fold, and the rest; every class is spread evenly over the folds."""
    order = np.random.default_rng([seed, 0, 41]).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), int)
    fold[order] = np.arange(len(labels)) % number
    return [(np.flatnonzero(fold == f), np.flatnonzero(fold != f)) for f in range(number)]


def linear_head(
    features: Tensor, targets: Tensor, decay: float = 1e-2, iterations: int = 60
) -> Head:
    """Logistic regression by L-BFGS; targets [n, classes] are probabilities."""
    weight = torch.zeros(features.shape[1], targets.shape[1], requires_grad=True)
    bias = torch.zeros(targets.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(features @ weight + bias, targets)
        value = value + decay * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach()


def logits(head: Head, features: Tensor) -> Tensor:
    """The head's outputs [n, classes]."""
    return features @ head[0] + head[1]


def mean_over_epochs(
    features: Tensor, labels: np.ndarray, num_classes: int, seed: int
) -> np.ndarray:
    """Probabilities [n, classes] of a network with one hidden layer, in sample, averaged over its epochs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(features.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, num_classes)
        )
    targets = torch.from_numpy(labels)
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, weight_decay=5e-4)
    steps = EPOCHS * math.ceil(len(labels) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    total = torch.zeros(len(labels), num_classes)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(net(features[rows]), targets[rows]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            total += net(features).softmax(1)
    return (total / EPOCHS).double().numpy()
