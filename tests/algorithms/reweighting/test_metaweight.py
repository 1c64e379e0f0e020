"""The loop finds wrong labels, repeats and resumes exactly."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from cwerm.algorithms.networks import models  # noqa: F401  (registers resnet20)
from cwerm.algorithms.reweighting.metaweight import MetaWeightNet, StepOptions, WeightNet

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


pytestmark = pytest.mark.usefixtures("on_one_thread")


def _flipped(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    wrong = generator.random(len(labels)) < share
    shift = generator.integers(1, 10, len(labels))
    return np.where(wrong, (labels + shift) % 10, labels), wrong


def test_wrong_labels_get_lower_weights(digits: Data) -> None:
    features, labels, meta_features, meta_labels = digits
    noisy, wrong = _flipped(labels, 0.4)
    metaweight = MetaWeightNet(epochs=40, device="cpu")
    weights = metaweight.fit(features, noisy, meta_features, meta_labels)
    assert weights.dtype == np.float32
    assert weights.shape == (600,)
    assert weights.min() > 0
    assert weights.max() < 1
    assert roc_auc_score(~wrong, weights) > 0.9
    assert roc_auc_score(wrong, metaweight.losses_) > 0.9


class _Network(nn.Module):
    """BatchNorm, dropout and convolutions, small."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
        )
        self.head = nn.Linear(72, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def _network() -> nn.Module:
    torch.manual_seed(4)
    return _Network()


def _shift(images: Tensor, generator: torch.Generator) -> Tensor:
    return images.roll(int(torch.randint(3, (1,), generator=generator)), dims=3)


def _fit_images(data: Data, state: dict[str, Any] | None = None, **kwargs: Any) -> MetaWeightNet:
    features, labels, meta_features, meta_labels = data
    on_epoch = kwargs.pop("on_epoch", None)
    metaweight = MetaWeightNet(
        _network(), epochs=5, average_last=3, augment=_shift, device="cpu", **kwargs
    )
    metaweight.weights = metaweight.fit(  # type: ignore[attr-defined]
        features.reshape(-1, 1, 8, 8) / 16,
        labels,
        meta_features.reshape(-1, 1, 8, 8) / 16,
        meta_labels,
        on_epoch,
        state,
    )
    return metaweight


def _assert_equal(a: MetaWeightNet, b: MetaWeightNet) -> None:
    np.testing.assert_array_equal(a.weights, b.weights)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(a.losses_, b.losses_)
    assert a.history_ == b.history_
    for x, y in ((a.classifier, b.classifier), (a.weight_net, b.weight_net)):
        for name, value in x.state_dict().items():
            assert torch.equal(value, y.state_dict()[name]), name


def test_resumed_runs_equal_an_undisturbed_one(digits: Data) -> None:
    """From every epoch, through a file; neither the hook nor the global seed changes anything."""
    saved = []

    def on_epoch(epoch: int, state: Any) -> None:
        assert epoch == len(saved)
        buffer = io.BytesIO()
        torch.save(state(), buffer)
        saved.append(buffer)

    undisturbed = _fit_images(digits)
    torch.manual_seed(99)
    hooked = _fit_images(digits, on_epoch=on_epoch)
    _assert_equal(hooked, undisturbed)
    assert len(saved) == 5
    for buffer in saved:
        buffer.seek(0)
        _assert_equal(_fit_images(digits, torch.load(buffer, weights_only=True)), undisturbed)
    other = _fit_images(digits, seed=1)
    assert not np.array_equal(other.weights, undisturbed.weights)  # type: ignore[attr-defined]


def test_fit_leaves_the_global_generator_alone(digits: Data) -> None:
    before = torch.get_rng_state()
    MetaWeightNet(epochs=1, device="cpu").fit(*digits)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_can_be_resumed_twice(digits: Data) -> None:
    states: list[dict[str, Any]] = []
    _fit_images(digits, on_epoch=lambda epoch, state: states.append(state()))
    _assert_equal(_fit_images(digits, states[1]), _fit_images(digits, states[1]))


def test_final_weights_are_the_mean_over_the_last_epochs_in_eval_mode(digits: Data) -> None:
    seen = []

    def on_epoch(epoch: int, state: Any) -> None:
        classifier, weight_net = _network(), WeightNet()
        classifier.load_state_dict(state()["classifier"])
        weight_net.load_state_dict(state()["weight_net"])
        images = torch.from_numpy(digits[0].reshape(-1, 1, 8, 8) / 16)
        with torch.no_grad():
            logits = classifier.eval()(images)
            losses = functional.cross_entropy(logits, torch.from_numpy(digits[1]), reduction="none")
            seen.append((weight_net(losses[:, None]), losses))

    metaweight = _fit_images(digits, on_epoch=on_epoch)
    expected = torch.stack([weights for weights, _ in seen[-3:]]).mean(0)
    np.testing.assert_allclose(metaweight.weights, expected, rtol=1e-5)  # type: ignore[attr-defined]
    np.testing.assert_allclose(metaweight.losses_, seen[-1][1], rtol=1e-4, atol=1e-6)


def test_learning_rate_falls_at_the_milestones(digits: Data) -> None:
    rates: list[float] = []
    MetaWeightNet(epochs=6, milestones=(1 / 2, 5 / 6), lr=0.1, device="cpu").fit(
        *digits,
        on_epoch=lambda _, state: rates.append(state()["optimizer"]["param_groups"][0]["lr"]),
    )
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.1, 0.01, 0.01, 0.001])


def test_history_and_kinds_of_arrays(digits: Data) -> None:
    metaweight = MetaWeightNet(epochs=5, lr=0.1, meta_batch_size=30, device="cpu")
    from_arrays = metaweight.fit(*digits)
    assert [record["epoch"] for record in metaweight.history_] == [0, 1, 2, 3, 4]
    last = metaweight.history_[-1]
    assert last["train_loss"] < metaweight.history_[0]["train_loss"]
    assert last["train_accuracy"] > 0.9
    assert last["meta_accuracy"] > 0.9
    assert 0 < last["weight_min"] <= last["weight_mean"] <= last["weight_max"] < 1
    from_tensors = metaweight.fit(*(torch.from_numpy(array) for array in digits))
    assert isinstance(from_tensors, Tensor)
    assert isinstance(metaweight.losses_, Tensor)
    np.testing.assert_array_equal(from_tensors.numpy(), from_arrays)


def test_meta_batches_pass_over_the_meta_set_in_turn(digits: Data) -> None:
    """600 samples in batches of 100 are 6 steps; 6 meta batches of 50 pass 3 times over 100."""
    features, labels, meta_features, meta_labels = digits
    features = features.copy()
    features[:, 0] = -1.0
    meta_features = meta_features.copy()
    meta_features[:, 0] = np.arange(100)
    seen = []

    def watch(inputs: Tensor, _: torch.Generator) -> Tensor:
        seen.append(inputs[:, 0].clone())
        return inputs

    MetaWeightNet(epochs=2, meta_batch_size=50, augment=watch, device="cpu").fit(
        features, labels, meta_features, meta_labels
    )
    batches = [batch for batch in seen if batch[0] != -1]
    assert len(batches) == 12
    passes = torch.cat(batches).view(6, 100)
    assert torch.equal(passes.sort(1).values, torch.arange(100.0).expand(6, 100))
    assert len({tuple(each.tolist()) for each in passes}) == 6
    trained = [len(batch) for batch in seen if batch[0] == -1]
    assert trained == [100] * 12


def test_a_timm_model_learns_in_place(digits: Data) -> None:
    images, labels, meta_images, meta_labels = digits
    model = timm.create_model("resnet20", in_chans=1)
    start = [p.clone() for p in model.parameters()]
    weights = MetaWeightNet(model, epochs=1, device="cpu").fit(
        images.reshape(-1, 1, 8, 8)[:200] / 16,
        labels[:200],
        meta_images.reshape(-1, 1, 8, 8) / 16,
        meta_labels,
    )
    assert weights.shape == (200,)
    assert all(not torch.equal(a, b) for a, b in zip(start, model.parameters(), strict=True))
    assert all(p.is_contiguous() for p in model.parameters())


def test_two_inputs_learn_from_the_second(digits: Data) -> None:
    """A column that says which labels are wrong is found; `weigh` gives the same function."""
    features, labels, meta_features, meta_labels = digits
    noisy, wrong = _flipped(labels, 0.4)
    extra = np.where(wrong, 0, 1).astype(np.float64)[:, None]
    metaweight = MetaWeightNet(epochs=20, average_last=1, weight_lr=1e-2, device="cpu")
    weights = metaweight.fit(features, noisy, meta_features, meta_labels, extra=extra)
    assert roc_auc_score(~wrong, weights) > 0.97
    losses = np.linspace(0, 3, 7, dtype=np.float32)
    good, bad = (
        metaweight.weigh(losses, np.ones((7, 1))),
        metaweight.weigh(losses, np.zeros((7, 1))),
    )
    assert isinstance(good, np.ndarray)
    assert (good > bad).all()
    np.testing.assert_allclose(metaweight.weigh(metaweight.losses_, extra), weights, rtol=1e-6)
    with pytest.raises(ValueError, match="extra has 0 columns but V was fitted with 1"):
        metaweight.weigh(losses)


def test_the_weight_net_moves_in_every_kth_step(digits: Data) -> None:
    """Two epochs of 6 steps: V moves in steps 0, 4 and 8, across the epochs' border."""
    counts: list[int] = []

    def on_epoch(epoch: int, state: Any) -> None:
        counts.append(int(state()["weight_optimizer"]["state"][0]["step"]))

    metaweight = MetaWeightNet(epochs=2, meta_every=4, device="cpu")
    metaweight.fit(*digits, on_epoch=on_epoch)
    assert counts == [2, 3]
    rare = MetaWeightNet(epochs=2, meta_every=12, device="cpu")
    rare.fit(*digits)
    assert np.isfinite(rare.history_[0]["meta_loss"])
    assert np.isnan(rare.history_[1]["meta_loss"])


def test_options_reach_the_step(digits: Data) -> None:
    plain = MetaWeightNet(epochs=2, device="cpu").fit(*digits)
    coarse = MetaWeightNet(epochs=2, device="cpu", options=StepOptions(autocast=torch.bfloat16))
    weights = coarse.fit(*digits)
    assert not np.array_equal(weights, plain)
    np.testing.assert_allclose(weights, plain, rtol=0.05)
