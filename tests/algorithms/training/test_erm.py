"""Batches, loss, learning rate and augmentation do not depend on the number of ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from cwerm.algorithms.training.erm import (
    augmentation_draws,
    batch_parts,
    batch_sizes,
    cosine_lr,
    crop_and_flip,
    epoch_batches,
    samples_of_turns,
    weighted_loss,
)


def test_every_world_size_sees_the_same_batches() -> None:
    """All small cases: each sample once, equal steps a rank, unions independent of the ranks."""
    for size in range(1, 40):
        for batch_size in range(1, 12):
            alone = epoch_batches(size, batch_size, 3, 5)
            assert sorted(np.concatenate(alone)) == list(range(size))
            assert len(alone) == math.ceil(size / batch_size)
            assert [len(batch) for batch in alone] == batch_sizes(size, batch_size)
            for world_size in range(2, min(map(len, alone)) + 1):
                parts = [
                    epoch_batches(size, batch_size, 3, 5, world_size, rank)
                    for rank in range(world_size)
                ]
                for batch, *shares in zip(alone, *parts, strict=True):
                    np.testing.assert_array_equal(np.concatenate(shares), batch)
                    lengths = [len(share) for share in shares]
                    assert max(lengths) - min(lengths) <= 1


@given(st.integers(1, 10**5), st.integers(1, 2000))
def test_batches_are_near_equal(num_samples: int, batch_size: int) -> None:
    sizes = batch_sizes(num_samples, batch_size)
    assert sum(sizes) == num_samples
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_order_depends_on_seed_and_epoch() -> None:
    orders = [
        tuple(np.concatenate(epoch_batches(50, 8, seed, epoch)))
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    assert len(set(orders)) == 4
    assert orders[0] == tuple(np.concatenate(epoch_batches(50, 50, 0, 0)))


def test_batches_too_small_for_the_ranks_are_an_error() -> None:
    with pytest.raises(ValueError, match="a batch of 2 samples cannot be split over 3 workers"):
        epoch_batches(10, 2, 0, 0, world_size=3)
    with pytest.raises(ValueError, match="must be at least 1"):
        epoch_batches(0, 2, 0, 0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_averaged_gradient_is_that_of_one_process(world_size: int) -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(11, 4, dtype=torch.float64), torch.randint(3, (11,))
    weights, theta = torch.rand(11, dtype=torch.float64) * 2, torch.randn(4, 3).double()
    theta.requires_grad_()

    losses = functional.cross_entropy(features @ theta, labels, reduction="none")
    (expected,) = torch.autograd.grad((weights * losses).mean(), theta)
    total = torch.zeros_like(theta)
    for part in np.array_split(np.arange(11), world_size):
        loss = weighted_loss(features[part] @ theta, labels[part], weights[part], 11, world_size)
        total += torch.autograd.grad(loss, theta)[0]
    torch.testing.assert_close(total / world_size, expected)


def test_cosine_lr_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    for step in range(50):
        assert cosine_lr(step, 50, 0.3) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def _crop_and_flip_slowly(
    images: np.ndarray, offsets: np.ndarray, flips: np.ndarray, padding: int
) -> np.ndarray:
    height, width = images.shape[2:]
    result = np.empty_like(images)
    for i, (row, column) in enumerate(offsets):
        padded = np.pad(images[i], ((0, 0), (padding, padding), (padding, padding)))
        crop = padded[:, row : row + height, column : column + width]
        result[i] = crop[:, :, ::-1] if flips[i] else crop
    return result


@given(
    batch=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 4),
    dtype=st.sampled_from([np.uint8, np.float32]),
    seed=st.integers(0, 2**32),
)
def test_crop_and_flip_equals_a_loop(
    batch: int, channels: int, height: int, width: int, padding: int, dtype: type, seed: int
) -> None:
    shape = (batch, channels, height, width)
    images = (np.random.default_rng(seed).random(shape) * 255).astype(dtype)
    offsets, flips = augmentation_draws(batch, seed, 1, padding)
    expected = _crop_and_flip_slowly(images, offsets, flips, padding)
    actual = crop_and_flip(torch.from_numpy(images), offsets, flips, padding)
    np.testing.assert_array_equal(actual.numpy(), expected)
    again = crop_and_flip(
        torch.from_numpy(images), torch.from_numpy(offsets), torch.from_numpy(flips), padding
    )
    assert torch.equal(again, actual)


def test_draws_are_uniform_and_differ_by_epoch() -> None:
    offsets, flips = augmentation_draws(50_000, 7, 2, 4)
    assert offsets.shape == (50_000, 2)
    for axis in (0, 1):
        counts = np.bincount(offsets[:, axis], minlength=9)
        assert len(counts) == 9
        np.testing.assert_allclose(counts / 50_000, 1 / 9, atol=0.006)
    assert abs(flips.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(offsets[:, 0], offsets[:, 1])[0, 1]) < 0.02
    same, _ = augmentation_draws(50_000, 7, 2, 4)
    np.testing.assert_array_equal(same, offsets)
    assert (augmentation_draws(50_000, 7, 3, 4)[0] == offsets).mean() < 0.13
    assert (augmentation_draws(50_000, 8, 2, 4)[0] == offsets).mean() < 0.13


@given(samples=st.integers(1, 60), turns=st.integers(1, 200), epoch=st.integers(0, 5))
def test_every_sample_has_its_turns(samples: int, turns: int, epoch: int) -> None:
    found = samples_of_turns(samples, turns, 7, epoch)
    counts = np.bincount(found, minlength=samples)
    assert len(found) == turns
    assert len(counts) == samples
    assert counts.max() - counts.min() <= 1
    if samples == turns:
        assert found.tolist() == list(range(samples))


def test_spare_turns_go_to_other_samples_in_other_epochs() -> None:
    counts = sum(np.bincount(samples_of_turns(10, 15, 3, e), minlength=10) for e in range(400))
    assert counts.min() > 0.9 * counts.max()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_is_that_of_torchvision(gamma: float) -> None:
    """Of two classes, where a sigmoid of the difference of the logits is the softmax."""
    from torchvision.ops import sigmoid_focal_loss

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 2, generator=generator)
    labels = torch.randint(0, 2, (40,), generator=generator)
    weights = torch.rand(40, generator=generator)
    expected = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.float(), -1, gamma)
    found = weighted_loss(logits, labels, weights, 40, focal_gamma=gamma)
    torch.testing.assert_close(found, weights @ expected / 40)


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_generalised_cross_entropy_by_its_formula_and_its_limits(q: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(40, 5, generator=generator)).requires_grad_()
    labels = torch.randint(0, 5, (40,), generator=generator)
    weights = torch.rand(40, generator=generator)
    found = weighted_loss(logits, labels, weights, 40, gce_q=q)
    right = logits.softmax(1)[torch.arange(40), labels]
    torch.testing.assert_close(found, weights @ ((1 - right**q) / q) / 40)
    # the gradient of each sample is that of the cross entropy times p^q
    (gradient,) = torch.autograd.grad(found, logits)
    plain = weighted_loss(logits, labels, weights * right.detach() ** q, 40)
    torch.testing.assert_close(gradient, torch.autograd.grad(plain, logits)[0])
    near = weighted_loss(logits, labels, weights, 40, gce_q=1e-6)
    torch.testing.assert_close(near, weighted_loss(logits, labels, weights, 40), rtol=1e-4, atol=0)


def test_generalised_cross_entropy_is_finite_where_a_label_is_impossible() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = weighted_loss(logits, torch.tensor([1]), torch.ones(1), 1, gce_q=0.7)
    loss.backward()
    assert loss.item() == pytest.approx(1 / 0.7)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_the_parts_of_a_batch_are_those_that_the_ranks_get(world_size: int) -> None:
    every = [epoch_batches(53, 11, 0, 0, world_size, rank) for rank in range(world_size)]
    for step, size in enumerate(batch_sizes(53, 11)):
        assert batch_parts(size, world_size) == [len(batches[step]) for batches in every]
