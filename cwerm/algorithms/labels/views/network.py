"""A small network on the vectors whose early predictions tell wrong labels from right ones.

Networks learn what most labels agree on first and single wrong labels last (Arpit et al. 2017; Liu et al.
2020, "Early-learning regularization"), so the predictions are averaged over the epochs of a short training.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from cwerm.algorithms.labels.views.space import LENGTH

__all__ = ["Network", "predict", "train"]

HIDDEN = 256
BATCH = 64
EPOCHS = 10
LEAST_STEPS = 300
RATE = 0.05
ROWS = 1024  # predicted at a time

# first layer [epochs, d, hidden], its bias [epochs, hidden], second layer [epochs, hidden, classes], its bias
Network = tuple[Tensor, Tensor, Tensor, Tensor]


def train(
    vectors: Float32[np.ndarray, "m d"],
    targets: Float32[np.ndarray, "m classes"],
    seed: int,
    rows: Int64[np.ndarray, " r"] | None = None,
) -> Network:
    """One hidden layer, by SGD on cross-entropy, kept after each epoch."""
    generator = torch.Generator().manual_seed(seed)
    inputs, wanted = torch.from_numpy(vectors), torch.from_numpy(targets)
    chosen = torch.arange(len(inputs)) if rows is None else torch.from_numpy(rows)
    d, classes = inputs.shape[1], wanted.shape[1]
    # all vectors have one length, whatever d
    first = torch.randn(d, HIDDEN, generator=generator) * (2**0.5 / LENGTH)
    # the second layer starts from zero, so that no class is favoured
    layers = [first, torch.zeros(HIDDEN), torch.zeros(HIDDEN, classes), torch.zeros(classes)]
    steps_an_epoch = -(-len(chosen) // BATCH)
    epochs = max(EPOCHS, -(-LEAST_STEPS // steps_an_epoch))
    kept: list[list[Tensor]] = []
    for epoch in range(epochs):
        order = chosen[torch.randperm(len(chosen), generator=generator)]
        for step, batch in enumerate(order.split(BATCH)):
            done = (epoch * steps_an_epoch + step) / (epochs * steps_an_epoch)
            _step(
                layers, inputs[batch], wanted[batch], RATE * 0.5 * (1 + float(np.cos(np.pi * done)))
            )
        if (epoch + 1) * EPOCHS // epochs > epoch * EPOCHS // epochs:
            kept.append([layer.clone() for layer in layers])
    a, b, c, e = (torch.stack(list(parts)) for parts in zip(*kept, strict=True))
    return a, b, c, e


def _step(layers: list[Tensor], inputs: Tensor, wanted: Tensor, rate: float) -> None:
    """One step of SGD; the gradients are written out, which is several times as fast as autograd here."""
    first, first_bias, second, second_bias = layers
    hidden = torch.addmm(first_bias, inputs, first).relu_()
    error = (torch.addmm(second_bias, hidden, second).softmax(1) - wanted) / len(inputs)
    back = (error @ second.T) * (hidden > 0)
    second.addmm_(hidden.T, error, alpha=-rate)
    second_bias.sub_(error.sum(0), alpha=rate)
    first.addmm_(inputs.T, back, alpha=-rate)
    first_bias.sub_(back.sum(0), alpha=rate)


def predict(
    network: Network, vectors: Float32[np.ndarray, "n d"]
) -> Float[np.ndarray, "n classes"]:
    """The softmax averaged over the epochs, float64."""
    first, first_bias, second, second_bias = network
    mean = np.empty((len(vectors), second.shape[2]))
    for start in range(0, len(vectors), ROWS):
        # always as many rows: the order of a product's sums can depend on their number
        block = torch.zeros(ROWS, vectors.shape[1])
        part = torch.from_numpy(vectors[start : start + ROWS])
        block[: len(part)] = part
        total = torch.zeros(ROWS, second.shape[2])
        for epoch in range(len(first)):
            hidden = torch.addmm(first_bias[epoch], block, first[epoch]).relu_()
            total += torch.addmm(second_bias[epoch], hidden, second[epoch]).softmax(1)
        mean[start : start + ROWS] = (total / len(first)).numpy()[: len(part)]
    return mean
