"""A short training of a classifier head on stored features, and what it showed of each sample.

Selection methods that rank samples by a model's outputs (`NEEDS = "outputs"`) read the
`TrainingRecord`; `snapshot` measures a head trained elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn import functional

from cwerm.algorithms.class_labels import as_labels
from cwerm.algorithms.inputs import Given, as_features
from cwerm.algorithms.reweighting.feature_head import feature_head
from cwerm.algorithms.reweighting.training_record import TrainingRecord
from cwerm.algorithms.torch_state import float32_defaults, plain_torch
from cwerm.algorithms.training.erm import cosine_lr, epoch_batches

__all__ = ["Snapshot", "snapshot", "train_head"]

EVALUATION_BATCH = 2048


class Snapshot(NamedTuple):
    """What a head says of each sample at the end of an epoch, float32; see `TrainingRecord`."""

    probabilities: Float[np.ndarray, "n classes"]
    errors: Float[np.ndarray, " n"]
    gradient_norms: Float[np.ndarray, " n"]


def snapshot(
    head: nn.Sequential,
    features: Float[np.ndarray, "n d"],
    labels: Int64[np.ndarray, " n"],
) -> Snapshot:
    """Evaluate a head on the features as they are; its last module must be linear.

    The gradient of the cross entropy by the logits is p - y, and by the linear layer's weight and
    bias the outer product of p - y and [h, 1], with h the layer's input. So its length is
    ||p - y|| * ||[h, 1]||, and no backward pass is needed.
    """
    last = head[-1]
    assert isinstance(last, nn.Linear)
    training = head.training
    head.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(labels), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            inputs, targets = _batch(features, labels, rows)
            hidden = head[:-1](inputs)
            probabilities = last(hidden).softmax(1)
            residuals = probabilities - functional.one_hot(targets, last.out_features)
            errors = residuals.norm(dim=1)
            norms = errors * (hidden.square().sum(1) + 1).sqrt()
            parts.append([values.numpy() for values in (probabilities, errors, norms)])
    head.train(training)
    return Snapshot(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def train_head(
    features: Given,
    labels: Given,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float = 0.02,
    hidden: int = 256,
    seed: int = 0,
) -> tuple[nn.Sequential, TrainingRecord]:
    """Train `feature_head` by SGD with a cosine schedule; the head and its record.

    Features [n, d] and labels [n] as in `select_coreset`; the head's outputs stand for the classes that
    occur, ascending. Start and order of the samples come from the seed alone: equal seeds give equal
    records on one machine and thread count. Raises ValueError for unusable data and if the loss diverges.
    """
    vectors = as_features(features)
    known = as_labels(labels, len(vectors))
    if vectors.dtype == np.float16:
        vectors = vectors.astype(np.float32)
    if epochs < 1:
        raise ValueError(f"a head must be trained for at least 1 epoch, got {epochs}")
    with plain_torch(), float32_defaults():
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            inputs = torch.from_numpy(np.array(vectors, order="C"))
            head = feature_head(inputs, len(known.classes), hidden)
        return head, _train(head, vectors, known.codes, epochs, batch_size, lr, seed)


def _train(
    head: nn.Sequential,
    features: Float[np.ndarray, "n d"],
    labels: Int64[np.ndarray, " n"],
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> TrainingRecord:
    optimizer = torch.optim.SGD(head.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    errors, norms, correct = [], [], []
    for epoch in range(epochs):
        batches = epoch_batches(len(labels), batch_size, seed, epoch)
        for step, positions in enumerate(batches):
            progress = epoch * len(batches) + step
            optimizer.param_groups[0]["lr"] = cosine_lr(progress, epochs * len(batches), lr)
            inputs, targets = _batch(features, labels, positions)
            optimizer.zero_grad()
            functional.cross_entropy(head(inputs), targets).backward()
            optimizer.step()
        probabilities, error, norm = snapshot(head, features, labels)
        if not np.isfinite(norm).all():
            raise ValueError(
                f"the head's outputs became NaN or infinite in epoch {epoch}: "
                f"lower its learning rate (it is {lr:g})"
            )
        errors.append(error)
        norms.append(norm)
        correct.append(probabilities.argmax(1) == labels)
    return TrainingRecord(
        probabilities, np.stack(errors, 1), np.stack(norms, 1), np.stack(correct, 1)
    )


def _batch(
    features: Float[np.ndarray, "n d"],
    labels: Int64[np.ndarray, " n"],
    rows: slice | Int[np.ndarray, " batch"],
) -> tuple[Float[Tensor, "batch d"], Int[Tensor, " batch"]]:
    kept = np.float64 if features.dtype == np.float64 else np.float32
    return torch.from_numpy(features[rows].astype(kept)), torch.from_numpy(labels[rows])
