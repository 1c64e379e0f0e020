"""One gate: what callers have gives the plain result, or the same line from every function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cwerm.algorithms.coreset import select_coreset
from cwerm.algorithms.detection import auroc, class_weight_ratio
from cwerm.algorithms.labels import LabelPosterior
from cwerm.algorithms.reweighting.head_training import train_head
from cwerm.algorithms.reweighting.metaweight import LearningToReweight, MetaWeightNet
from cwerm.algorithms.spreading.broadcast import broadcast_weights

N, D, CLASSES = 120, 6, 3
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, N)
FEATURES = (RNG.normal(size=(N, D)) + 3 * np.eye(CLASSES, D)[LABELS]).astype(np.float32)
IDS = np.arange(0, N, 6)
WEIGHTS = RNG.uniform(0.1, 1, len(IDS)).astype(np.float32)
META = slice(0, 40)


def fitted(learner: Any) -> Callable[[Any, Any], Any]:
    def fit(features: Any, labels: Any) -> Any:
        part = [features[META], labels[META]]
        if isinstance(features, pd.DataFrame):
            part = [features.iloc[META], part[1]]
        if isinstance(labels, pd.Series):
            part = [part[0], labels.iloc[META]]
        return learner.fit(features, labels, *part)

    return fit


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "select moderate": lambda x, y: select_coreset(x, y, 0.1),
    "select herding": lambda x, y: select_coreset(x, y, 0.1, "herding"),
    "select random": lambda x, y: select_coreset(x, y, 0.1, "random"),
    "select el2n": lambda x, y: select_coreset(x, y, 0.1, "el2n"),
    "broadcast nearest": lambda x, y: broadcast_weights(x, y, IDS, WEIGHTS)[0],
    "broadcast vote": lambda x, y: broadcast_weights(x, y, IDS, WEIGHTS, "vote", 5)[0],
    "train head": lambda x, y: train_head(x, y, epochs=1)[1].errors,
    "weight net": lambda x, y: fitted(MetaWeightNet(epochs=1, device="cpu"))(x, y),
    "l2r": lambda x, y: fitted(LearningToReweight(epochs=1, device="cpu"))(x, y),
}
PLAIN = {name: np.asarray(call(FEATURES, LABELS)) for name, call in FUNCTIONS.items()}
SHUFFLED = np.random.default_rng(1).permutation(N)

ACCEPTED_LABELS: dict[str, Any] = {
    **{t: LABELS.astype(t) for t in ("u1", "i1", "i2", "u2", "u4", "u8", ">i4", ">u8", "O")},
    "list": LABELS.tolist(),
    "series": pd.Series(LABELS, index=SHUFFLED),
    "nullable series": pd.Series(LABELS, index=SHUFFLED, dtype="Int64"),
    "categorical": pd.Categorical(LABELS),
    "strings": np.array(["ant", "bee", "cat"])[LABELS],
    "list of strings": np.array(["ant", "bee", "cat"])[LABELS].tolist(),
    "series of strings": pd.Series(np.array(["ant", "bee", "cat"])[LABELS], index=SHUFFLED),
    "categories": pd.Categorical.from_codes(LABELS, ["ant", "bee", "cat"]),
    "reversed view": LABELS[::-1].copy()[::-1],
    "tensor": torch.from_numpy(LABELS),
    "int8 tensor": torch.from_numpy(LABELS).to(torch.int8),
}
ACCEPTED_FEATURES: dict[str, Any] = {
    "float64": FEATURES.astype(np.float64),
    "longdouble": FEATURES.astype(np.longdouble),
    "big-endian": FEATURES.astype(">f4"),
    "Fortran": np.asfortranarray(FEATURES),
    "reversed view": FEATURES[::-1].copy()[::-1],
    "objects": FEATURES.astype(object),
    "frame": pd.DataFrame(FEATURES, index=SHUFFLED),
    "tensor that needs a gradient": torch.from_numpy(FEATURES).requires_grad_(),
    "list": FEATURES.tolist(),
}


@pytest.mark.parametrize("given", ACCEPTED_LABELS)
def test_labels_of_any_kind(given: str) -> None:
    for name, call in FUNCTIONS.items():
        np.testing.assert_array_equal(
            np.asarray(call(FEATURES, ACCEPTED_LABELS[given])), PLAIN[name], err_msg=name
        )


@pytest.mark.parametrize("given", ACCEPTED_FEATURES)
def test_features_of_any_kind(given: str) -> None:
    for name, call in FUNCTIONS.items():
        found = call(ACCEPTED_FEATURES[given], LABELS)
        np.testing.assert_array_equal(np.asarray(found), PLAIN[name], err_msg=name)


def spoiled(value: float) -> np.ndarray:
    features = FEATURES.copy()
    features[7, 2] = value
    return features


MISTAKES: dict[str, tuple[Any, Any, str]] = {
    "float labels": (FEATURES, LABELS.astype(float), "labels are float64: give integers"),
    "one-hot": (FEATURES, np.eye(CLASSES, dtype=int)[LABELS], r"shape \[120, 3\].*argmax"),
    "column": (FEATURES, LABELS[:, None], r"labels have shape \[120, 1\].*labels\[:, 0\]"),
    "negative": (FEATURES, LABELS - 1, "class numbers from 0 on, got -1 in row"),
    "complex": (FEATURES, LABELS + 0j, "labels are complex128"),
    "mixed": (FEATURES, [*LABELS[1:].tolist(), "b"], "labels mix int and str"),
    "missing": (FEATURES, [None, *LABELS[1:].tolist()], "row 0 of the labels is missing"),
    "missing number": (
        FEATURES,
        pd.Series([1, pd.NA, *LABELS[2:]], dtype="Int64"),
        "row 1 of the labels is missing",
    ),
    "fewer": (FEATURES, LABELS[:-1], "120 (features|inputs) but 119 labels"),
    "NaN": (spoiled(np.nan), LABELS, "row 7 of the (features|inputs) has NaN or infinite"),
    "infinity": (spoiled(-np.inf), LABELS, "row 7 of the (features|inputs) has NaN or infinite"),
    "fill value": (spoiled(1e37), LABELS, "row 7 of the (features|inputs) holds 1e.37"),
    "1-d": (FEATURES[:, 0], LABELS, r"have shape \[120\]"),
    "3-d": (FEATURES.reshape(N, 2, 3), LABELS, r"have shape \[120, 2, 3\]"),
    "no columns": (FEATURES[:, :0], LABELS, r"have shape \[120, 0\]"),
    "no rows": (FEATURES[:0], LABELS[:0], "no samples"),
    "words": (np.full((N, 2), "a"), LABELS, "give real numbers"),
    "complex features": (FEATURES + 0j, LABELS, "give real numbers"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_everywhere(mistake: str) -> None:
    features, labels, message = MISTAKES[mistake]
    for name, call in FUNCTIONS.items():
        with pytest.raises(ValueError, match=message) as raised:
            call(features, labels)
        assert "\n" not in str(raised.value), name


def test_booleans_are_two_classes() -> None:
    flags = LABELS > 0
    for name, call in FUNCTIONS.items():
        expected = np.asarray(call(FEATURES, flags.astype(int)))
        np.testing.assert_array_equal(np.asarray(call(FEATURES, flags)), expected, err_msg=name)


def test_one_class_is_named() -> None:
    for name, call in FUNCTIONS.items():
        if name.startswith(("select", "weight", "l2r")):
            with pytest.raises(ValueError, match="all samples are of class 0"):
                call(FEATURES, LABELS * 0)


BAD_PAIRS: dict[str, tuple[Any, Any, str]] = {
    "repeated": (np.r_[IDS[1], IDS[1:]], WEIGHTS, "coreset ids repeat 6 in row 1"),
    "out of range": (IDS + 100, WEIGHTS, "row numbers from 0 to 119, got 124 in row 4"),
    "negative ids": (IDS - 1, WEIGHTS, "row numbers from 0 to 119, got -1 in row 0"),
    "float ids": (IDS.astype(float), WEIGHTS, "coreset ids are float64"),
    "mask": (np.isin(np.arange(N), IDS), WEIGHTS, "boolean mask: .*flatnonzero"),
    "empty": (IDS[:0], WEIGHTS[:0], "give one or more row numbers"),
    "NaN": (IDS, np.where(IDS == 18, np.nan, WEIGHTS), "row 3 of the coreset weights is nan"),
    "negative": (IDS, np.where(IDS == 18, -1, WEIGHTS), "row 3 of the coreset weights is -1"),
    "infinite": (IDS, np.where(IDS == 18, np.inf, WEIGHTS), "row 3 of the coreset weights is inf"),
    "other length": (IDS, WEIGHTS[:-1], "20 coreset ids but 19 weights"),
    "columns": (IDS, WEIGHTS[:, None], r"shape \[20, 1\].*weights\[:, 0\]"),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
@pytest.mark.parametrize(("method", "neighbors"), [("nearest", 1), ("nearest", 9), ("vote", 9)])
def test_bad_ids_and_weights(case: str, method: str, neighbors: int) -> None:
    ids, weights, message = BAD_PAIRS[case]
    with pytest.raises(ValueError, match=message) as raised:
        broadcast_weights(FEATURES, LABELS, ids, weights, method, neighbors)
    assert "\n" not in str(raised.value)


def test_ids_and_weights_of_any_kind() -> None:
    for ids, weights in (
        (IDS.tolist(), WEIGHTS.tolist()),
        (torch.from_numpy(IDS), torch.from_numpy(WEIGHTS).requires_grad_()),
        (pd.Series(IDS, index=IDS), pd.Series(WEIGHTS, index=IDS[::-1])),
        (IDS.astype(">u2"), WEIGHTS.astype(">f8")),
    ):
        found = broadcast_weights(FEATURES, LABELS, ids, weights)[0]
        np.testing.assert_array_equal(found, PLAIN["broadcast nearest"])


@pytest.mark.parametrize("learner", [MetaWeightNet, LearningToReweight])
def test_a_class_without_a_clean_sample_is_named(learner: Any) -> None:
    names = np.array(["ant", "bee", "cat"])[LABELS]
    kept = LABELS != 2
    for labels, label in ((LABELS, "2"), (names, "cat")):
        with pytest.raises(ValueError, match=f"class {label} has no sample in the meta set"):
            learner(epochs=1).fit(FEATURES, labels, FEATURES[kept], labels[kept])
    with pytest.raises(ValueError, match="labels are strings and meta_labels numbers"):
        learner(epochs=1).fit(FEATURES, names, FEATURES, LABELS)


def test_costs_do_not_grow_with_the_largest_label() -> None:
    numbers = np.array([3, 10**6, 2**62 + 1])
    for name, call in FUNCTIONS.items():
        if name != "select random":  # there the label is a seed
            found = np.asarray(call(FEATURES, numbers[LABELS]))
            np.testing.assert_array_equal(found, PLAIN[name], err_msg=name)
    learner = MetaWeightNet(epochs=1, device="cpu")
    learner.fit(FEATURES, numbers[LABELS], FEATURES, numbers[LABELS])
    assert learner.classes_.tolist() == numbers.tolist()
    assert learner.classifier[-1].out_features == CLASSES
    with pytest.raises(ValueError, match="labels reach 4611686018427387905 but num_classes is 3"):
        MetaWeightNet(num_classes=3).fit(FEATURES, numbers[LABELS], FEATURES, numbers[LABELS])


def test_strings_name_the_outputs() -> None:
    names = np.array(["ant", "bee", "cat"])[LABELS]
    learner = MetaWeightNet(torch.nn.Linear(D, 5), epochs=1, device="cpu")
    learner.fit(FEATURES, names, FEATURES, names)
    assert learner.classes_.tolist() == ["ant", "bee", "cat"]
    assert class_weight_ratio(np.ones(N), names) == class_weight_ratio(np.ones(N), LABELS)


def test_the_posterior_and_detection() -> None:
    posterior = LabelPosterior(CLASSES)
    trusted = {"trusted_features": FEATURES.tolist(), "trusted_labels": LABELS.tolist()}
    posterior.fit(FEATURES, LABELS.astype(">u2"), **trusted)
    expected = posterior.judge(FEATURES, LABELS)
    found = posterior.judge(pd.DataFrame(FEATURES), pd.Series(LABELS))
    for each, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(each, other)
    for labels, message in ((LABELS + 1, "labels reach 3: with 3 classes"), (["a"] * N, "strings")):
        with pytest.raises(ValueError, match=message):
            posterior.judge(FEATURES, labels)
    with pytest.raises(ValueError, match="5 columns but fit saw 6"):
        posterior.judge(FEATURES[:, :5], LABELS)
    with pytest.raises(ValueError, match="give True or False"):
        auroc(np.ones(4), [0, 1, 0, 1])
