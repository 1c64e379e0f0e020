"""How good a classifier is: counts that add up over batches and ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from cwerm.algorithms.reliability import calibration_error, reliability_bins, reliability_rows

__all__ = ["BATCH", "Evaluation", "logits_of"]

BATCH = 500


def logits_of(
    model: nn.Module,
    inputs: Shaped[Tensor, "n ..."] | Iterable[Shaped[Tensor, "_ ..."]],
    normalise: Callable[[Tensor], Tensor],
) -> Float[Tensor, "n classes"]:
    """What the model says of samples that are held on its device, or come in blocks; nothing waits for it."""
    model.eval()
    blocks = inputs.split(BATCH) if isinstance(inputs, Tensor) else inputs
    with torch.inference_mode():
        return torch.cat([model(normalise(some)) for some in blocks])


@dataclass(frozen=True)
class Evaluation:
    """Sums over the samples seen; make one by `from_logits`, add parts by `merge`.

    Calibration counts by the probability of the predicted class, in `reliability_bins`.
    """

    loss_sum: float
    top5_correct: int
    class_counts: Int[np.ndarray, " classes"]
    class_correct: Int[np.ndarray, " classes"]
    bins: Float[np.ndarray, "3 bins"]

    @classmethod
    def from_logits(
        cls, logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
    ) -> Evaluation:
        """Evaluate one batch; `ValueError` if a logit is NaN or infinite."""
        if not logits.isfinite().all():
            raise ValueError(
                "logits are NaN or infinite: training diverged, lower the learning rate"
            )
        num_classes = logits.shape[1]
        logits = logits.double()
        confidence, predicted = logits.softmax(1).max(1)
        correct = predicted == labels
        top5 = logits.topk(min(5, num_classes)).indices
        return cls(
            loss_sum=functional.cross_entropy(logits, labels, reduction="sum").item(),
            top5_correct=int((top5 == labels[:, None]).sum()),
            class_counts=_count(labels, num_classes),
            class_correct=_count(labels[correct], num_classes),
            bins=reliability_bins(confidence.cpu().numpy(), correct.cpu().numpy()),
        )

    def merge(self, other: Evaluation) -> Evaluation:
        """The evaluation of both sets of samples together."""
        return Evaluation(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def summary(self) -> dict[str, Any]:
        """Means over the samples.

        `accuracy`, `accuracy_top5` (None with fewer than 5 classes), `per_class_accuracy` (None for
        a class without samples), `expected_calibration_error`, `reliability` (of each bin with samples
        their number, mean probability and accuracy) and `loss`; plain numbers, ready for JSON.
        """
        total = int(self.class_counts.sum())
        return {
            "accuracy": int(self.class_correct.sum()) / total,
            "accuracy_top5": self.top5_correct / total if len(self.class_counts) >= 5 else None,
            "per_class_accuracy": [
                int(correct) / int(count) if count else None
                for correct, count in zip(self.class_correct, self.class_counts, strict=True)
            ],
            "expected_calibration_error": calibration_error(self.bins),
            "reliability": [[*row] for row in reliability_rows(self.bins)],
            "loss": self.loss_sum / total,
        }


def _count(values: Int[Tensor, " values"], size: int) -> Int[np.ndarray, " size"]:
    return torch.bincount(values, minlength=size).cpu().numpy()
