"""The probability that a sample's label is right, learned on a reference set with nothing known clean.

The contract, for whoever fits in one process and judges in others::

    posterior = LabelPosterior(num_classes, seed=0)
    posterior.fit(features, labels)                    # the reference set, up to about 20,000 samples
    posterior.fit(features, labels, trusted_features=..., trusted_labels=..., groups=...)
    judged = posterior.judge(block, block_labels, reference_rows=rows)    # on any worker

`fit` takes features [m, d], any real numbers, and labels [m], class numbers below `num_classes`; with them,
where there are any, trusted samples (features [t, d], labels [t], believed right, none of them in the
reference set) and groups [m] (whole numbers; samples of a group are shots of one thing and do not vouch for
each other). Afterwards there are

- `open`: whether wrong labels were found. If not, every weight is exactly 1 and no label is an issue;
- `noise_rate` and `noise_rate_interval` (90%): the share of wrong labels, 0 to 1;
- `transitions` [classes, classes]: how often a sample of a class (row) was given a label (column);
- `duplicate_group` [m]: a number for each reference sample, the same for near-duplicates;
- `warnings`: plain lines on what was decided.

`judge` takes any samples in blocks of any size, and returns a `Judgement` of arrays with a row a sample:

- `weight`: float32, 0 and up. On average about 1 over the reference set, so the mean over all data is for the
  caller to make 1: divide by it once. With a closed gate each is exactly 1.0;
- `quality`: the probability that the given label is right;
- `issue`: whether the label is more likely wrong than right or, where wrong labels follow what is seen in the
  image and hide where classes overlap, one of those that the views contradict; never with a closed gate;
- `suggested`, `suggestion_probability`: the most probable class and its probability, of an issue the most
  probable other one;
- `belief` [n, classes]: the probability of each class;
- `duplicate_of` [n]: the `duplicate_group` of the reference set that the sample is of, -1 for none.

In place of features, or with them, `fit` and `judge` take `probabilities` [n, classes] of a model that was
not trained on the samples, as a third view.

No label vouches for itself: `reference_rows` [n] says which row of the reference set a sample is, -1 for
none, so that it is not its own neighbour (nor are its near-duplicates). Without `reference_rows` no sample is
taken for one of the reference set. A sample's result depends neither on the block it is in nor on other
samples of it (to 1e-6), so any number of workers gives the same. `state()` is a flat dict of plain tensors
(fit for safetensors), `LabelPosterior.from_state(state)` the fitted object again.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from cwerm.algorithms.inputs import Given, as_features, check_whole_number, class_numbers
from cwerm.algorithms.labels import calibration, network, weights
from cwerm.algorithms.labels.gate import STRANGE, Gate, check_noise
from cwerm.algorithms.labels.judgement import Judgement
from cwerm.algorithms.labels.marks import row_marks
from cwerm.algorithms.labels.probabilities import as_probabilities
from cwerm.algorithms.labels.reference import Reference
from cwerm.algorithms.labels.transitions import (
    anchor_counts,
    anchor_rate,
    expected,
    normalised,
    posterior,
    shrunk,
)
from cwerm.algorithms.labels.trusted import TrustedHead, best_power
from cwerm.algorithms.labels.views import OfReference, Views, neighbours_for
from cwerm.algorithms.torch_state import float32_defaults, plain_torch

__all__ = ["LabelPosterior"]

ROUNDS = 2
SLOPE = 0.7  # the views are multiplied as if they were independent, which makes them too sure
STRANGER = 0.02  # of how likely the likeliest class of a usual sample is
FIRST, MOSTLY = 0.4, 0.6
DOUBT, HIDDEN = 0.5, 1.5


class LabelPosterior:
    """Learns on a reference set; then judges any samples of the same features and classes."""

    def __init__(self, num_classes: int, seed: int = 0) -> None:
        check_whole_number("num_classes", num_classes, 2)
        check_whole_number("seed", seed, 0)
        self.num_classes, self.seed = int(num_classes), int(seed)
        self.reference: Reference | None = None
        self.views: Views

    def fit(
        self,
        features: Given,
        labels: Given,
        *,
        probabilities: Given = None,
        trusted_features: Given = None,
        trusted_labels: Given = None,
        groups: Given = None,
    ) -> LabelPosterior:
        """Learn from the reference set; see the module's docstring.

        Raises:
            ValueError: features that are no rows of finite numbers, labels that are no class numbers,
                lengths that differ.
        """
        given = None if features is None else as_features(features)
        numbers = class_numbers(labels, self.num_classes, None if given is None else len(given))
        chances = self._chances(probabilities, numbers, given)
        known = np.zeros(0, np.int64)
        trusted = None
        if trusted_features is not None and given is not None:
            trusted = as_features(trusted_features, "trusted_features")
            known = class_numbers(trusted_labels, self.num_classes, len(trusted), "trusted_labels")
            if trusted.shape[1] != given.shape[1]:
                raise ValueError(
                    f"features have {given.shape[1]} columns but trusted_features {trusted.shape[1]}"
                )
        own = None if groups is None else class_numbers(groups, 1 << 62, len(numbers), "groups")
        # in an order of their own, so that the order in which the samples come changes nothing
        content = given if given is not None else chances
        assert content is not None
        order = np.lexsort((numbers, row_marks(content)))
        self.place = np.argsort(order)
        given, numbers = None if given is None else given[order], numbers[order]
        chances, own = (None if a is None else a[order] for a in (chances, own))
        with plain_torch(), float32_defaults(), network.one_thread():
            self.reference = None
            if given is not None:
                trusted = given[:0] if trusted is None else trusted
                k = neighbours_for(np.concatenate([numbers, known]))
                self.reference = Reference(given, trusted, own, k, self.seed)
            self._learn(numbers, known, chances)
        return self

    def _chances(
        self, values: Given, numbers: Int64[np.ndarray, " n"], given: np.ndarray | None
    ) -> Float64[np.ndarray, "n classes"] | None:
        if values is None and given is None:
            raise ValueError("there is nothing to judge labels by: give features or probabilities")
        if values is None:
            return None
        return as_probabilities(values, len(numbers), self.num_classes).astype(np.float64)

    def _learn(
        self,
        labels: Int64[np.ndarray, " m"],
        known: Int64[np.ndarray, " t"],
        chances: Float64[np.ndarray, "m classes"] | None,
    ) -> None:
        """Fit the views to the given labels, then to what is believed of them, while that pays."""
        truth = np.eye(self.num_classes, dtype=np.float32)[np.concatenate([labels, known])]
        m = len(labels)
        self.head = None
        if len(known) and self.reference is not None:
            vectors = self.reference.vectors[m:]
            self.head = TrustedHead.fit(vectors, known, self.num_classes)
        said = self._fit_views(truth, chances)
        self.gate: Gate = check_noise(said.predicted[:m], said.plain[:m], labels)
        self.transitions = shrunk(anchor_counts(normalised(said.unseen[:m]), labels))
        self.noise_rate = self._anchor_rate(said.unseen[:m], labels)
        again = self.gate.open and self.gate.mislabelled and self.reference is not None
        for number in range(ROUNDS if again else 0):
            before = self.views, self.transitions, said
            targets = truth.copy()
            targets[:m] = posterior(normalised(said.seen[:m]), labels, self.transitions)
            score = self._score(said.seen[:m], labels)
            said = self._fit_views(targets, chances)
            self.transitions = shrunk(anchor_counts(normalised(said.unseen[:m]), labels))
            if number > 0 and self._score(said.seen[:m], labels) <= score:
                self.views, self.transitions, said = before
                break
        self._calibrate(said.unseen, labels, known)
        self._settle(said.seen[:m], said.unseen[:m], labels)

    def _fit_views(
        self,
        targets: Float32[np.ndarray, "all classes"],
        chances: Float64[np.ndarray, "m classes"] | None,
    ) -> OfReference:
        if self.reference is None:
            assert chances is not None
            return OfReference(chances, chances, chances, chances)
        self.views = Views(self.reference, targets, self.seed, self.head)
        return self.views.of_reference(chances)

    def _calibrate(
        self,
        unseen: Float64[np.ndarray, "all classes"],
        labels: Int64[np.ndarray, " m"],
        known: Int64[np.ndarray, " t"],
    ) -> None:
        """The classes' shares and the noise rate; with trusted samples T, too, by beliefs that these
        calibrate.

        Without, the anchors of the first views, which are of given labels, show more noise than there is, and
        those of the last, in which beliefs confirm themselves, less: the rate is between. Noise without
        structure has an estimate of its own.
        """
        m = len(labels)
        beliefs = normalised(unseen[:m])
        if len(unseen) > m:
            beliefs = normalised(beliefs ** best_power(unseen[m:], known))
            self.transitions = shrunk(expected(beliefs, labels, self.transitions))
        self.priors = posterior(beliefs, labels, self.transitions).mean(axis=0)
        last = anchor_rate(self.transitions, self.priors)
        if len(unseen) > m:
            self.noise_rate = last
        elif self.gate.unstructured and self.gate.mixture > MOSTLY * last:
            self.noise_rate = (self.gate.mixture + last) / 2
        else:
            self.noise_rate = FIRST * self.noise_rate + (1 - FIRST) * last

    def _anchor_rate(
        self, unseen: Float64[np.ndarray, "m classes"], labels: Int64[np.ndarray, " m"]
    ) -> float:
        priors = posterior(normalised(unseen), labels, self.transitions).mean(axis=0)
        return anchor_rate(self.transitions, priors)

    def _score(
        self, joint: Float64[np.ndarray, "m classes"], labels: Int64[np.ndarray, " m"]
    ) -> float:
        """The mean log-likelihood of the given labels."""
        return float(np.log((normalised(joint) * self.transitions[:, labels].T).sum(axis=1)).mean())

    def _settle(
        self,
        joint: Float64[np.ndarray, "m classes"],
        unseen: Float64[np.ndarray, "m classes"],
        labels: Int64[np.ndarray, " m"],
    ) -> None:
        """Noise rate, calibration and weights, from what is said of the reference set."""
        m = len(labels)
        level = STRANGER if self.gate.strangers == 0 else 2 * STRANGE
        self.stranger = level * float(np.median(joint.max(axis=1)))
        strangers = self.gate.strangers
        self.noise_rate = self.noise_rate * (1 - strangers) + strangers
        spread = 1.645 * np.sqrt(self.noise_rate * (1 - self.noise_rate) / max(1, 0.2 * m)) + 0.02
        low = self.noise_rate - spread if self.gate.open else 0.0
        self.noise_rate_interval = (max(0.0, float(low)), min(1.0, float(self.noise_rate + spread)))
        found = posterior(joint, labels, self.transitions, self.stranger)
        given = found[np.arange(m), labels]
        self.shift = calibration.fit_shift(given, SLOPE, self.noise_rate)
        quality = calibration.calibrated(given, SLOPE, self.shift)
        self.doubt = DOUBT
        if self.gate.open and not (self.gate.unstructured or self.gate.strangers):
            # noise that follows the image hides where classes overlap: all that the views contradict
            contradicted = (unseen.argmax(axis=1) != labels).mean()
            if contradicted > HIDDEN * self.noise_rate:
                self.doubt = max(DOUBT, float(np.quantile(quality, contradicted)))
        self.border, rescued = weights.borders(quality, labels, self.num_classes)
        raw = weights.raw_weights(quality, labels, self.border)
        self.scale = weights.class_scales(raw, labels, self.priors)
        self.warnings = self._warnings(rescued)

    def _warnings(self, rescued: np.ndarray) -> tuple[str, ...]:
        lines = []
        if not self.gate.informative:
            lines.append("the features say nothing about the labels, so none can be judged")
        if self.gate.open:
            lines += [
                f"nearly all labels of class {number} look wrong; its best are kept"
                for number in np.flatnonzero(rescued)
            ]
        return tuple(lines)

    @property
    def open(self) -> bool:
        """Whether wrong labels were found."""
        return self.gate.open

    @property
    def duplicate_group(self) -> Int64[np.ndarray, " m"] | None:
        """A number for each sample of the reference set, the same for near-duplicates."""
        return None if self.reference is None else self.reference.duplicate_group[self.place]

    def judge(
        self,
        features: Given,
        labels: Given,
        *,
        probabilities: Given = None,
        reference_rows: Given = None,
        groups: Given = None,
    ) -> Judgement:
        """What is believed of samples; see the module's docstring.

        Raises:
            ValueError: features or labels that do not fit those of `fit`.
        """
        given = None if features is None else as_features(features)
        numbers = class_numbers(labels, self.num_classes, None if given is None else len(given))
        chances = self._chances(probabilities, numbers, given)
        rows = np.full(len(numbers), -1, np.int64)
        if reference_rows is not None:
            rows = np.asarray(reference_rows).astype(np.int64)
            rows = np.where(rows >= 0, self.place[np.maximum(rows, 0)], -1)
        duplicate = np.full(len(numbers), -1, np.int64)
        if given is not None and self.reference is not None:
            if given.shape[1] != len(self.reference.mean):
                raise ValueError(
                    f"features have {given.shape[1]} columns but fit saw {len(self.reference.mean)}"
                )
            with plain_torch(), float32_defaults():
                vectors = self.reference.vectors_of(given)
                own = None if groups is None else np.asarray(groups).astype(np.int64)
                near, which, duplicate = self.reference.look_up(vectors, rows, own)
                joint = self.views.joint(vectors, near, which, rows, chances)
        else:
            assert chances is not None
            joint = chances
        found = posterior(joint, numbers, self.transitions, self.stranger)
        return self._judgement(found, numbers, duplicate)

    def _judgement(
        self,
        found: Float64[np.ndarray, "n classes"],
        labels: Int64[np.ndarray, " n"],
        duplicate: Int64[np.ndarray, " n"],
    ) -> Judgement:
        rows = np.arange(len(labels))
        quality = calibration.calibrated(found[rows, labels], SLOPE, self.shift)
        belief = found.copy()
        belief[rows, labels] = 0
        belief *= ((1 - quality) / np.maximum(belief.sum(axis=1), 1e-300))[:, None]
        other = belief.argmax(axis=1)
        belief[rows, labels] = quality
        weight = np.ones(len(labels))
        issue = np.zeros(len(labels), bool)
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

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs to judge as this one does."""
        plain = {
            "transitions": self.transitions,
            "priors": self.priors,
            "place": self.place,
            "border": self.border,
            "scale": self.scale,
            "gate": np.array([float(value) for value in self.gate]),
            "rate": np.array([self.noise_rate, *self.noise_rate_interval]),
            "shift": np.array([self.shift, self.stranger, self.doubt]),
            "warnings": np.frombuffer("\n".join(self.warnings).encode(), np.uint8).copy(),
        }
        state = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in plain.items()}
        if self.reference is not None:
            state |= {f"reference.{k}": v for k, v in self.reference.state().items()}
            state |= {f"views.{k}": v for k, v in self.views.state().items()}
        return state

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> LabelPosterior:
        """The fitted object that gave `state`."""
        made = cls(num_classes=len(state["priors"]))
        for name in ("transitions", "priors", "place", "border", "scale"):
            setattr(made, name, state[name].numpy())
        opened, informative, *seen = state["gate"].tolist()
        made.gate = Gate(bool(opened), bool(informative), *seen)
        made.noise_rate, *interval = state["rate"].tolist()
        made.noise_rate_interval = (interval[0], interval[1])
        made.shift, made.stranger, made.doubt = state["shift"].tolist()
        made.warnings = tuple(state["warnings"].numpy().tobytes().decode().splitlines())
        made.reference = None
        parts: dict[str, dict[str, Tensor]] = {"reference": {}, "views": {}}
        for name, tensor in state.items():
            room, _, rest = name.partition(".")
            if rest:
                parts[room][rest] = tensor
        if parts["views"]:
            made.reference = Reference.from_state(parts["reference"])
            made.views = Views.from_state(made.reference, parts["views"])
        return made
