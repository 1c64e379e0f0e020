"""From what the views say of a sample to its quality, suggestion and weight."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from scipy.stats import beta
from torch import Tensor

from cwerm.algorithms.labels import calibration, weights
from cwerm.algorithms.labels.gate import STRANGE, Gate
from cwerm.algorithms.labels.judgement import Judgement
from cwerm.algorithms.labels.learning import Learned
from cwerm.algorithms.labels.transitions import posterior

__all__ = ["Verdict"]

SLOPE = 0.7  # the views are multiplied as if they were independent, which makes them too sure
STRANGER = 0.02  # of how likely the likeliest class of a usual sample is
DOUBT, HIDDEN = 0.5, 1.8
BELOW, DEVIATIONS = 0.95, 1.645  # 90% on both sides
MODEL_ERROR = 0.02  # how far rates were off beyond chance, on images to choose on
ANCHORS = 0.2

Joint = Float64[np.ndarray, "n classes"]
Numbers = Int64[np.ndarray, " n"]
OfClasses = Float64[np.ndarray, " classes"]


@dataclass(frozen=True)
class Verdict:
    """What makes one scale of all samples.

    `stranger` is how likely no class is, `shift` calibrates, labels of a quality below `doubt` are issues,
    weights begin at the `border` of a class and are scaled by its `scale`; `rescued` classes would vanish.
    """

    gate: Gate
    transitions: Float64[np.ndarray, "classes classes"]
    noise_rate: float
    noise_rate_interval: tuple[float, float]
    stranger: float
    shift: float
    doubt: float
    border: OfClasses
    scale: OfClasses
    rescued: Bool[np.ndarray, " classes"]

    @classmethod
    def on(cls, learned: Learned, labels: Numbers) -> Verdict:
        """From what was learned on the reference set with these labels."""
        gate, joint, m = learned.gate, learned.joint, len(labels)
        level = 2 * STRANGE if gate.strangers else STRANGER
        stranger = level * float(np.median(joint.max(axis=1)))
        rate = learned.noise_rate * (1 - gate.strangers) + gate.strangers
        interval = _interval(rate, max(1.0, ANCHORS * m), gate.open)
        if not gate.informative:
            rate, interval = 0.0, (0.0, 1.0)
        found = posterior(joint, labels, learned.transitions, stranger)
        given = found[np.arange(m), labels]
        shift = calibration.fit_shift(given, SLOPE, rate)
        quality = calibration.calibrated(given, SLOPE, shift)
        border, rescued = weights.borders(quality, labels, len(learned.priors))
        raw = weights.raw_weights(quality, labels, border)
        return cls(
            gate,
            learned.transitions,
            rate,
            interval,
            stranger,
            shift,
            _doubt(quality, (learned.unseen.argmax(axis=1) != labels).mean(), rate, gate),
            border,
            weights.class_scales(raw, labels, learned.priors),
            rescued,
        )

    def judge(
        self, joint: Joint, labels: Numbers, duplicate: Numbers, known: Bool[np.ndarray, " n"]
    ) -> Judgement:
        """Of any samples, from what the views say of them, unless their labels are known to be right."""
        rows = np.arange(len(labels))
        belief = posterior(joint, labels, self.transitions, self.stranger)
        quality = calibration.calibrated(belief[rows, labels], SLOPE, self.shift)
        quality[known] = 1
        belief[rows, labels] = 0
        belief *= ((1 - quality) / np.maximum(belief.sum(axis=1), 1e-300))[:, None]
        other = belief.argmax(axis=1)
        belief[rows, labels] = quality
        weight, issue = np.ones(len(labels)), np.zeros(len(labels), bool)
        if self.gate.open:
            weight = weights.raw_weights(quality, labels, self.border) * self.scale[labels]
            issue = quality < self.doubt
        suggested = np.where(issue, other, belief.argmax(axis=1))
        return Judgement(
            weight.astype(np.float32),
            quality.astype(np.float32),
            issue,
            suggested,
            belief[rows, suggested].astype(np.float32),
            belief.astype(np.float32),
            duplicate,
        )

    def warnings(self, names: list[str]) -> tuple[str, ...]:
        """Plain lines; `names` are the classes'."""
        if not self.gate.informative:
            return ("the features say nothing about the labels, so none can be judged",)
        if self.gate.undecided:
            return (
                "what would tell: more samples, or features that keep the classes apart better",
            )
        if not self.gate.open:
            return ()
        vanishing = [names[number] for number in np.flatnonzero(self.rescued)]
        return tuple(
            f"nearly all labels of class {name} look wrong; its best are kept" for name in vanishing
        )

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs."""
        values = {field.name: np.array(getattr(self, field.name)) for field in fields(self)}
        values["gate"] = values["gate"].astype(np.float64)
        return {name: torch.from_numpy(value.copy()) for name, value in values.items()}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Verdict:
        """The one that gave `state`."""
        opened, informative, *seen = state["gate"].tolist()
        low, high = state["noise_rate_interval"].tolist()
        return cls(
            Gate(bool(opened), bool(informative), *seen),
            state["transitions"].numpy(),
            float(state["noise_rate"]),
            (low, high),
            float(state["stranger"]),
            float(state["shift"]),
            float(state["doubt"]),
            state["border"].numpy(),
            state["scale"].numpy(),
            state["rescued"].numpy(),
        )


def _interval(rate: float, anchors: float, found: bool) -> tuple[float, float]:
    """Where the rate is with 90% probability; where nothing was found, what can't be ruled out."""
    if (
        not found
    ):  # that none was wrong of a few says less than the rate's own spread, which is 0 there
        most = beta.ppf(BELOW, rate * anchors + 1, max((1 - rate) * anchors, 1e-9))
        return 0.0, min(1.0, float(most) + MODEL_ERROR)
    spread = DEVIATIONS * np.sqrt(rate * (1 - rate) / anchors) + MODEL_ERROR
    return max(0.0, float(rate - spread)), min(1.0, float(rate + spread))


def _doubt(
    quality: Float64[np.ndarray, " m"], contradicted: float, rate: float, gate: Gate
) -> float:
    """Below which quality a label is an issue: a half.

    But noise that follows the image hides where classes overlap, and its rate reads too low. There all are
    issues, the worst first, as many as the views contradict.
    """
    hidden = contradicted > HIDDEN * rate and not (gate.unstructured or gate.strangers)
    return max(DOUBT, float(np.quantile(quality, contradicted))) if hidden else DOUBT
