"""Classifiers, weight nets and torch's settings as users have them: right, or one line before any work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from meta_reference import difference, unrolled_gradient
from torch import Tensor, nn

from cwerm.algorithms.coreset import select_coreset
from cwerm.algorithms.labels import LabelPosterior
from cwerm.algorithms.reweighting.metaweight import (
    LearningToReweight,
    MetaWeightNet,
    WeightNet,
    meta_gradient,
)

N, D, CLASSES = 60, 6, 3
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, N)
FEATURES = (RNG.normal(size=(N, D)) + 3 * np.eye(CLASSES, D)[LABELS]).astype(np.float32)
META = (FEATURES[:20], LABELS[:20])


def mlp(*between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 8), *between, nn.ReLU(), nn.Linear(8, CLASSES))


class Returning(nn.Module):
    """What a model makes of its logits."""

    def __init__(self, change: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.model, self.change = mlp(), change

    def forward(self, inputs: Tensor) -> Any:
        return self.change(self, self.model(inputs))


def fit(model: nn.Module | None = None, learner: Any = MetaWeightNet, **settings: Any) -> Any:
    made = learner(model, **{"epochs": 2, "device": "cpu", **settings})
    return made, made.fit(FEATURES, LABELS, *META)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "tuple": (lambda: Returning(lambda _, o: (o, o)), "returns a tuple"),
    "tuple in training": (
        lambda: Returning(lambda m, o: (o, o) if m.training else o),
        "returns a tuple",
    ),
    "dict": (lambda: Returning(lambda _, o: {"logits": o}), "returns a dict"),
    "one number": (lambda: Returning(lambda _, o: o[:, 0]), "two of them for two classes"),
    "integers": (lambda: Returning(lambda _, o: o.long()), "real logits"),
    "a sequence": (lambda: Returning(lambda _, o: o[:, None]), r"shape \[2, 1, 3\]"),
    "one column": (lambda: Returning(lambda _, o: o[:, :1]), "has 1 outputs: give at least 3"),
    "frozen": (lambda: mlp().requires_grad_(False), "no parameter that requires a gradient"),
    "TorchScript": (
        lambda: torch.jit.trace(mlp(), torch.zeros(2, D), check_trace=False),
        "TorchScript module",
    ),
    "other width": (lambda: nn.Linear(D + 1, CLASSES), r"cannot take inputs of shape \[2, 6\]"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of TorchScript
@pytest.mark.parametrize("learner", [MetaWeightNet, LearningToReweight])
@pytest.mark.parametrize("case", REFUSED)
def test_models_that_cannot_learn_are_named(case: str, learner: Any) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as raised:
        fit(make(), learner)
    assert "\n" not in str(raised.value)


def test_models_in_their_own_type() -> None:
    for kind in (torch.float64, torch.bfloat16):
        model = mlp().to(kind)
        before = model[0].weight.clone()
        for learner in (MetaWeightNet, LearningToReweight):
            weights = fit(model, learner)[1]
            assert weights.dtype == np.float32
            assert np.isfinite(weights).all()
        assert model[0].weight.dtype == kind
        assert not torch.equal(model[0].weight, before)


def test_integers_reach_an_embedding() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(50, 8), nn.Linear(8, CLASSES)

        def forward(self, words: Tensor) -> Tensor:
            return self.last(self.table(words).mean(1))

    words = RNG.integers(0, 50, (N, 5)).astype(np.uint8)
    weights = MetaWeightNet(Words(), epochs=1, device="cpu").fit(
        words, LABELS, words[:20], LABELS[:20]
    )
    assert np.isfinite(weights).all()
    as_floats = MetaWeightNet(nn.Linear(5, CLASSES), epochs=1, device="cpu")
    assert np.isfinite(as_floats.fit(words, LABELS, words[:20], LABELS[:20])).all()


def test_what_float32_blurs_is_named_for_a_classifier_of_that_type() -> None:
    far = FEATURES.astype(np.float64) + 1e8
    with pytest.raises(ValueError, match=r"column 0 of the inputs .* subtract the mean"):
        MetaWeightNet(mlp(), epochs=1).fit(far, LABELS, far[:20], LABELS[:20])
    MetaWeightNet(mlp().double(), epochs=1, lr=1e-9).fit(far, LABELS, far[:20], LABELS[:20])


def test_frozen_layers_stay_and_flags_come_back() -> None:
    model = mlp(nn.BatchNorm1d(8), nn.Dropout(0.5))
    model[1].eval()
    before = model[1].running_mean.clone()
    fit(model)
    assert torch.equal(model[1].running_mean, before)
    assert [m.training for m in model] == [True, False, True, True, True]
    model.eval()  # as a whole: it is trained all the same
    fit(model)
    assert not torch.equal(model[1].running_mean, before)
    assert not any(m.training for m in model.modules())
    model.train()
    with pytest.raises(ValueError, match="NaN or infinite"):
        fit(model, lr=1e30)
    assert all(m.training for m in model.modules())


def test_wrapped_models_train_the_same() -> None:
    expected = fit(mlp())[1]
    for wrap in (nn.DataParallel, lambda m: torch.compile(m, backend="aot_eager")):
        model = wrap(mlp())
        learner, weights = fit(model)
        np.testing.assert_array_equal(weights, expected)
        assert learner.classifier is model


@contextlib.contextmanager
def default(setting: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    setting(value)
    try:
        yield
    finally:
        setting(before)


SURROUNDINGS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64 by default": lambda: default(torch.set_default_dtype, torch.float64, torch.float32),
    "another device by default": lambda: default(torch.set_default_device, "meta", None),
    "deterministic": lambda: default(torch.use_deterministic_algorithms, True, False),
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_what_is_set_around_the_call_does_not_matter(surroundings: str) -> None:
    def results() -> list[Any]:
        posterior = LabelPosterior(CLASSES).fit(FEATURES, LABELS)
        return [
            fit()[1],
            fit(learner=LearningToReweight)[1],
            select_coreset(FEATURES, LABELS, 0.2, "el2n"),
            posterior.judge(FEATURES, LABELS).quality,
        ]

    expected = results()
    state = torch.get_rng_state()
    with SURROUNDINGS[surroundings]():
        before = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device())
        found = results()
        after = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device())
    for each, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(each, other)
    assert before == after
    assert torch.equal(torch.get_rng_state(), state)


def batches() -> list[tuple[Tensor, Tensor]]:
    inputs, labels = torch.from_numpy(FEATURES).double(), torch.from_numpy(LABELS)
    return [(inputs[:12], labels[:12]), (inputs[12:21], labels[12:21])]


class Partly(WeightNet):
    """A frozen layer and an unused one."""

    def __init__(self) -> None:
        super().__init__(1, 8)
        self.hidden.requires_grad_(False)
        self.unused = nn.Linear(2, 2)


class Squeezed(nn.Sequential):
    def forward(self, losses: Tensor) -> Tensor:
        return super().forward(losses).squeeze(1)


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: WeightNet(1, 8),
    "dropout": lambda: Squeezed(nn.Linear(1, 50), nn.Dropout(0.5), nn.Linear(50, 1), nn.Sigmoid()),
    "BatchNorm": lambda: Squeezed(
        nn.Linear(1, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 1), nn.Sigmoid()
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_weight_nets_equal_the_unrolled_step(name: str) -> None:
    torch.manual_seed(1)
    model, net = mlp().double(), NETS[name]().double()
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    torch.manual_seed(7)
    found = meta_gradient(model, net, *batches(), 0.3)
    assert all(torch.equal(b, buffers[n]) for n, b in net.named_buffers())
    torch.manual_seed(7)
    assert difference(found, unrolled_gradient(model, net, *batches(), 0.3)) < 1e-12


def test_columns_frozen_and_unused_layers_of_a_weight_net() -> None:
    model = mlp().double()
    plain = WeightNet(1, 8).double()
    expected = meta_gradient(model, plain, *batches(), 0.3)
    column = nn.Sequential(plain.hidden, nn.ReLU(), plain.output, nn.Sigmoid())
    for found, each in zip(meta_gradient(model, column, *batches(), 0.3), expected, strict=True):
        torch.testing.assert_close(found, each)
    partly = Partly().double()
    partly.load_state_dict(plain.state_dict(), strict=False)
    found = meta_gradient(model, partly, *batches(), 0.3)
    assert [bool(part.any()) for part in found] == [False, False, True, True, False, False]
    torch.testing.assert_close(found[2], expected[2])
    single = meta_gradient(model, WeightNet(1, 8), *batches(), 0.3)  # float32 beside float64
    assert single[0].dtype == torch.float32
    with pytest.raises(ValueError, match="weight net has no parameter that requires"):
        meta_gradient(model, plain.requires_grad_(False), *batches(), 0.3)
    with pytest.raises(ValueError, match=r"weight net returns \[12, 2\] for 12 losses"):
        meta_gradient(model, nn.Linear(1, 2).double(), *batches(), 0.3)


def test_meta_gradient_names_what_it_cannot_use() -> None:
    net, ((inputs, labels), meta) = WeightNet(1, 8).double(), batches()
    model = mlp().double()
    expected = meta_gradient(model, net, (inputs, labels), meta, 0.3)
    for given in ((inputs.float(), labels.int()), (inputs.clone().requires_grad_(), labels.byte())):
        found = meta_gradient(model, net, given, meta, 0.3)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-7)
    with torch.no_grad():
        torch.testing.assert_close(meta_gradient(model, net, (inputs, labels), meta, 0.3), expected)
    shares = nn.functional.one_hot(labels, CLASSES).double()
    found = meta_gradient(model, net, (inputs, shares), meta, 0.3)
    torch.testing.assert_close(found, expected)
    for bad, message in (
        ((inputs, shares.long()), r"have shape \[12, 3\]"),
        ((inputs, labels[:, None]), r"have shape \[12, 1\]"),
        ((inputs, labels.double()), "are torch.float64"),
        ((inputs, labels - 1), "class numbers from 0 on, got -1"),
        ((inputs, labels + 1), "labels reach 3 but the classifier has 3 outputs"),
        ((inputs, labels[:5]), "12 inputs but labels of shape"),
        ((inputs[:0], labels[:0]), "has no samples"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            meta_gradient(model, net, bad, meta, 0.3)
        assert "\n" not in str(raised.value)
    for bad_model, message in (
        (mlp().double().requires_grad_(False), "no parameter that requires a gradient"),
        (nn.Sequential(nn.LazyLinear(CLASSES)).double(), "lazy layers"),
        (Returning(lambda _, o: [o]).double(), "returns a list"),
    ):
        with pytest.raises(ValueError, match=message):
            meta_gradient(bad_model, net, (inputs, labels), meta, 0.3)
