"""What `find_label_errors` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped

from cwerm.algorithms.class_labels import Labels
from cwerm.algorithms.labels.judgement import Judgement

if TYPE_CHECKING:
    from cwerm.algorithms.labels.posterior import LabelPosterior

__all__ = ["LabelErrors", "headline"]

SHOWN = 5


@dataclass(frozen=True, repr=False)
class LabelErrors:
    """Which labels look wrong, one entry a sample unless said otherwise.

    If `noise_found` is False, what was seen is not more than overlapping classes explain: every weight is
    exactly 1 and no label an issue. `quality` still ranks the labels, as the best there is to look at first.

    Attributes:
        labels: as given.
        quality: the probability that the given label is right, 0 to 1.
        suggested_label: the most probable class, of an issue the most probable other one; as the labels.
        suggestion_probability: its probability.
        is_issue: whether the label is more likely wrong than right; where wrong labels hide among overlapping
            classes, also whether the features contradict it.
        belief: [n, classes], the probability of each class; with over 1,000 classes a SciPy sparse array
        of the 20 most probable ones.
        weight: for training; 0 and up, of mean 1.
        noise_rate: the share of wrong labels, and `noise_rate_interval` where it is with 90% probability.
        undecided: whether none were found since so few samples can't tell; the interval says what may be.
        transitions: [classes, classes], the probability of each given label (column) by class (row).
        duplicate_group: the same number for samples that are (nearly) the same.
        classes: the names of the columns.
        noise_found: whether there are wrong labels at all.
        warnings: plain lines on what was decided.
    """

    labels: Shaped[np.ndarray, " n"]
    quality: Float32[np.ndarray, " n"]
    suggested_label: Shaped[np.ndarray, " n"]
    suggestion_probability: Float32[np.ndarray, " n"]
    is_issue: Bool[np.ndarray, " n"]
    belief: Any
    weight: Float[np.ndarray, " n"]
    noise_rate: float
    noise_rate_interval: tuple[float, float]
    transitions: Float64[np.ndarray, "classes classes"]
    duplicate_group: Int64[np.ndarray, " n"]
    classes: Shaped[np.ndarray, " classes"]
    noise_found: bool
    undecided: bool
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        posterior: LabelPosterior,
        judged: Judgement,
        known: Labels,
        duplicate_group: Int64[np.ndarray, " n"],
    ) -> LabelErrors:
        """From what the posterior judged of all samples."""
        total = judged.weight.astype(np.float64)
        return cls(
            labels=known.classes[known.codes],
            quality=judged.quality,
            suggested_label=known.classes[judged.suggested],
            suggestion_probability=judged.suggestion_probability,
            is_issue=judged.issue,
            belief=judged.belief,
            weight=(total / total.mean()).astype(np.float32),
            noise_rate=posterior.noise_rate,
            noise_rate_interval=posterior.noise_rate_interval,
            transitions=posterior.transitions,
            duplicate_group=duplicate_group,
            classes=known.classes,
            noise_found=posterior.open,
            undecided=posterior.undecided,
            warnings=posterior.warnings_for([str(name) for name in known.classes]),
        )

    def to_pandas(self) -> Any:
        """A DataFrame with a row for each sample, in the order given.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ImportError("to_pandas needs pandas; install it: pip install pandas") from None
        columns = ("quality", "suggested_label", "suggestion_probability", "is_issue", "weight")
        return pd.DataFrame(
            {
                "label": self.labels,
                **{name: getattr(self, name) for name in columns},
                "duplicate_group": self.duplicate_group,
            }
        )

    def __repr__(self) -> str:
        rate = self.noise_rate if self.noise_found else None
        extremes = float(self.weight.min()), float(self.weight.max())
        interval = self.noise_rate_interval
        lines = [headline(len(self.labels), rate, interval, extremes, self.undecided)]
        if self.noise_found:
            lines.append(f"{int(self.is_issue.sum()):,} are issues; the least probable:")
            lines += [
                f"  row {row}: {self.labels[row]}, probably {self.suggested_label[row]} "
                f"({self.suggestion_probability[row]:.2f})"
                for row in np.argsort(self.quality, kind="stable")[:SHOWN]
                if self.is_issue[row]
            ]
        return "\n".join([*lines, *(f"warning: {line}" for line in self.warnings)])


def headline(
    samples: int,
    rate: float | None,
    interval: tuple[float, float],
    weights: tuple[float, float],
    undecided: bool = False,
) -> str:
    """What was found, in one line.

    `rate` is the share of wrong labels, None where none were found; it lies in the `interval`. `weights` are
    the least and the largest. Where so few samples can't tell, it is `undecided` whether there are any.
    """
    (least, most), (low, high) = interval, weights
    if rate is None and undecided:
        return (
            f"no wrong labels found, but {samples:,} are too few to tell: up to {100 * most:.0f}% may be "
            "wrong; all weights are 1"
        )
    if rate is None and most >= 1:  # the features say nothing
        return f"none of {samples:,} labels can be judged: all weights are 1"
    if rate is None:
        return f"no wrong labels found among {samples:,}: all weights are 1"
    return (
        f"about {100 * rate:.0f}% ({100 * least:.0f}-{100 * most:.0f}) of {samples:,} labels look wrong: "
        f"weights from {low:.2g} to {high:.2g}"
    )
