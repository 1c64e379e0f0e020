"""What a network learns of a sample: its label, another one where that is sure, or a belief."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32
from torch import Tensor

__all__ = ["MOST_CLASSES", "SURE", "Beliefs", "Mixed", "most_probable", "on_device", "relabelled"]

SURE = 0.9  # from which another class counts as the label
MOST_CLASSES = 20  # of a belief that are kept


class Beliefs(NamedTuple):
    """How probable the classes of each sample are, the most probable ones; each row sums to 1."""

    classes: Int32[np.ndarray, "n kept"] | Int[Tensor, "n kept"]
    probabilities: Float32[np.ndarray, "n kept"] | Float[Tensor, "n kept"]

    def dense(self, num_classes: int) -> Float[Tensor, "n classes"]:
        """A probability for each class, of beliefs that are tensors."""
        classes, probabilities = self
        assert isinstance(classes, Tensor), "tensors of a batch"
        assert isinstance(probabilities, Tensor)
        zeros = probabilities.new_zeros(len(classes), num_classes)
        return zeros.scatter_(1, classes.long(), probabilities)


class Mixed(NamedTuple):
    """What was mixed into each sample of a batch: that of another one, which counts `1 - share`."""

    share: float
    labels: Int[Tensor, " part"]
    weights: Float[Tensor, " part"]
    beliefs: Beliefs | None = None


def most_probable(belief: Float[np.ndarray, "n classes"]) -> Beliefs:
    """The most probable classes of each sample, in order; of up to `MOST_CLASSES` all."""
    kept = np.argsort(-belief, axis=1, kind="stable")[:, :MOST_CLASSES]
    probabilities = np.take_along_axis(belief, kept, axis=1).astype(np.float64)
    if kept.shape[1] < belief.shape[1]:
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Beliefs(kept.astype(np.int32), probabilities.astype(np.float32))


def relabelled(
    labels: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    suggested: Int[np.ndarray, " n"],
    probability: Float[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Labels and weights of mean 1: where another class is `SURE`, it counts as much as it is sure.

    That is p(right) - p(wrong) of the new label, as the weights of given ones are.

    Args:
        labels: in use.
        weights: of mean 1, by how likely these are right.
        suggested: the most probable class where a label looks wrong, else the label.
        probability: of the suggested class.
    """
    sure = (suggested != labels) & (probability > SURE)
    made = np.where(sure, 2 * probability.astype(np.float64) - 1, weights)
    return np.where(sure, suggested, labels).astype(labels.dtype), made / made.mean()


def on_device(beliefs: Beliefs, device: torch.device) -> Beliefs:
    """The same as tensors."""
    return Beliefs(*(torch.as_tensor(values, device=device) for values in beliefs))
