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
- `undecided`: whether none were found since so few samples can't tell;
- `noise_rate` and `noise_rate_interval` (90%): the share of wrong labels, 0 to 1;
- `transitions` [classes, classes]: how often a sample of a class (row) was given a label (column);
- `duplicate_group` [m]: a number for each reference sample, the same for near-duplicates;
- `warnings`: plain lines on what was decided, `warnings_for(names)` with the names of the classes.

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

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from cwerm.algorithms.class_labels import class_numbers
from cwerm.algorithms.inputs import Given, as_array, as_features, check_whole_number
from cwerm.algorithms.labels.judgement import Judgement
from cwerm.algorithms.labels.learning import learn
from cwerm.algorithms.labels.probabilities import as_probabilities
from cwerm.algorithms.labels.verdict import Verdict
from cwerm.algorithms.labels.views.marks import row_marks
from cwerm.algorithms.labels.views.reference import Reference
from cwerm.algorithms.labels.views.together import Views, neighbours_for
from cwerm.algorithms.torch_state import float32_defaults, one_thread, plain_torch

__all__ = ["LabelPosterior"]


class LabelPosterior:
    """Learns on a reference set; then judges any samples of the same features and classes."""

    verdict: Verdict
    place: Int64[np.ndarray, " m"]
    """Of each sample of the reference set, in the order of their content."""

    def __init__(self, num_classes: int, seed: int = 0) -> None:
        check_whole_number("num_classes", num_classes, 2)
        check_whole_number("seed", seed, 0)
        self.num_classes, self.seed = int(num_classes), int(seed)
        self.reference: Reference | None = None
        self.views: Views | None = None

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
        given, numbers, chances = self._checked(features, labels, probabilities)
        trusted, known = None, np.zeros(0, np.int64)
        if trusted_features is not None and given is not None:
            trusted = as_features(trusted_features, "trusted_features")
            known = class_numbers(trusted_labels, self.num_classes, len(trusted), "trusted_labels")
            if trusted.shape[1] != given.shape[1]:
                raise ValueError(
                    f"features have {given.shape[1]} columns but trusted_features {trusted.shape[1]}"
                )
        own = None if groups is None else class_numbers(groups, 1 << 62, len(numbers), "groups")
        # in an order of their own, so that the order in which the samples come changes nothing
        content = chances if given is None else given
        assert content is not None
        order = np.lexsort((numbers, row_marks(content)))
        self.place = np.argsort(order)
        given, chances, own = (None if a is None else a[order] for a in (given, chances, own))
        numbers = numbers[order]
        with plain_torch(), float32_defaults(), one_thread() as threads:
            self.reference = None
            if given is not None:
                k = neighbours_for(np.concatenate([numbers, known]))
                trusted = given[:0] if trusted is None else trusted
                self.reference = Reference(given, trusted, own, k, self.seed)
            learned = learn(
                self.reference, numbers, known, chances, self.num_classes, self.seed, threads
            )
            self.views, self.verdict = learned.views, Verdict.on(learned, numbers)
        return self

    def _checked(
        self, features: Given, labels: Given, probabilities: Given
    ) -> tuple[np.ndarray | None, Int64[np.ndarray, " n"], Float64[np.ndarray, "n classes"] | None]:
        given = None if features is None else as_features(features)
        numbers = class_numbers(labels, self.num_classes, None if given is None else len(given))
        if probabilities is not None:
            chances = as_probabilities(probabilities, len(numbers), self.num_classes)
            return given, numbers, chances.astype(np.float64)
        if given is None:
            raise ValueError("there is nothing to judge labels by: give features or probabilities")
        return given, numbers, None

    @property
    def open(self) -> bool:
        """Whether wrong labels were found."""
        return self.verdict.gate.open

    @property
    def undecided(self) -> bool:
        """Whether none were found since so few samples can't tell."""
        return self.verdict.gate.undecided

    def close(self) -> None:
        """Judge as if no wrong labels had been found: all weights 1, no issue."""
        self.verdict = replace(self.verdict, gate=self.verdict.gate._replace(open=False))

    @property
    def noise_rate(self) -> float:
        """The share of wrong labels."""
        return self.verdict.noise_rate

    @property
    def noise_rate_interval(self) -> tuple[float, float]:
        """Where the share of wrong labels is with 90% probability."""
        return self.verdict.noise_rate_interval

    @property
    def transitions(self) -> Float64[np.ndarray, "classes classes"]:
        """How often a sample of a class (row) was given a label (column)."""
        return self.verdict.transitions

    @property
    def duplicate_group(self) -> Int64[np.ndarray, " m"] | None:
        """A number for each sample of the reference set, the same for near-duplicates."""
        return None if self.reference is None else self.reference.duplicate_group[self.place]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Plain lines on what was decided."""
        return self.warnings_for([str(number) for number in range(self.num_classes)])

    def warnings_for(self, names: list[str]) -> tuple[str, ...]:
        """The same with the names of the classes."""
        return self.verdict.warnings(names)

    def judge(
        self,
        features: Given,
        labels: Given,
        *,
        probabilities: Given = None,
        reference_rows: Given = None,
        groups: Given = None,
        known: Given = None,
        trusted: bool = False,
    ) -> Judgement:
        """What is believed of samples; see the module's docstring.

        Of those that are ``known``, bool [n], a person has said that the label is right. With ``trusted`` all
        are samples that `fit` was given as trusted, with their labels: each is left out of what those say,
        and the other views take it for a near-duplicate of itself, which does not vouch for it.

        Raises:
            ValueError: features, probabilities or labels that do not fit those of `fit`.
        """
        given, numbers, chances = self._checked(features, labels, probabilities)
        rows, own = _whole(reference_rows, numbers), _whole(groups, numbers)
        sure = np.zeros(len(numbers), bool) if known is None else as_array(known, "known")
        if sure.shape != numbers.shape or sure.dtype != bool:
            raise ValueError(f"known: give {len(numbers)} times True or False")
        rows = np.where(rows >= 0, self.place[np.maximum(rows, 0)], -1)
        if self.reference is None or self.views is None:
            if chances is None:
                raise ValueError("fit saw probabilities alone: give probabilities")
            return self.verdict.judge(chances, numbers, np.full(len(numbers), -1), sure)
        if given is None:
            raise ValueError("fit saw features: give features, too")
        if given.shape[1] != len(self.reference.mean):
            raise ValueError(
                f"features have {given.shape[1]} columns but fit saw {len(self.reference.mean)}"
            )
        with plain_torch(), float32_defaults():
            vectors = self.reference.vectors_of(given)
            near, which, duplicate = self.reference.look_up(vectors, rows, own)
            seen = (numbers, self.reference.vectors[len(self.place) :]) if trusted else None
            joint = self.views.joint(vectors, near, which, rows, chances, seen)
        return self.verdict.judge(joint, numbers, duplicate, sure)

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs to judge as this one does."""
        parts = {"verdict": self.verdict.state()}
        if self.reference is not None and self.views is not None:
            parts |= {"reference": self.reference.state(), "views": self.views.state()}
        flat = {f"{room}.{k}": value for room, part in parts.items() for k, value in part.items()}
        return {"place": torch.from_numpy(self.place.copy()), **flat}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> LabelPosterior:
        """The fitted object that gave `state`."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            room, _, rest = name.partition(".")
            parts.setdefault(room, {})[rest] = tensor
        made = cls(num_classes=len(state["verdict.border"]))
        made.place, made.verdict = state["place"].numpy(), Verdict.from_state(parts["verdict"])
        if "reference" in parts:
            made.reference = Reference.from_state(parts["reference"])
            made.views = Views.from_state(made.reference, parts["views"])
        return made


def _whole(values: Given, numbers: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Row or group numbers, -1 for none."""
    if values is None:
        return np.full(len(numbers), -1, np.int64)
    array = as_array(values, "rows or groups")
    if array.shape != numbers.shape or array.dtype.kind not in "iu":
        raise ValueError(
            f"give {len(numbers)} whole numbers as reference_rows or groups, -1 for none"
        )
    return array.astype(np.int64)
