"""Operations and policies against torchvision's, one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from cwerm.algorithms.training.augmentation import policies
from cwerm.algorithms.training.augmentation.operations import OPERATIONS
from cwerm.algorithms.training.recipe import Augment

THEIRS = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}


def photographs(number: int, height: int = 32, width: int = 32) -> Tensor:
    """Smooth images with some noise, uint8, one of them of one colour."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(number, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = 0.1 * torch.randn(number, 3, height, width, generator=generator)
    images = (200 * smooth + 20 + 255 * noise).clamp(0, 255).to(torch.uint8)
    images[0] = 77
    return images


def strengths_of(policy: Augment, name: str, side: int) -> list[float]:
    """Some of those that torchvision has, with both signs where there are two."""
    made, signed = THEIRS[policy]._AUGMENTATION_SPACE[name]
    values = made(31, side, side)
    values = [0.0] if values is None else [float(value) for value in values[::6]]
    return [*values, *(-value for value in values)] if signed else values


@pytest.mark.parametrize("policy", ["trivial", "rand"])
@pytest.mark.parametrize("name", [*OPERATIONS])
def test_an_operation_is_torchvisions(policy: Augment, name: str) -> None:
    images, strengths = photographs(4), strengths_of(policy, name, 32)
    theirs = v2.TrivialAugmentWide()
    differing = []
    for strength in strengths:
        found = OPERATIONS[name](images, torch.full((4,), strength))
        for image, mine in zip(images, found, strict=True):
            expected = theirs._apply_image_or_video_transform(
                image, name, strength, InterpolationMode.NEAREST, {}
            )
            difference = (mine.int() - expected.int()).abs()
            differing.append((difference > 1).double().mean().item())
    # of the nearest pixel two may be equally near
    placed = name.startswith("Shear") or name == "Rotate"
    assert np.mean(differing) <= (0.005 if placed else 0.0)
    assert max(differing) <= (0.1 if placed else 0.0)


@pytest.mark.parametrize("name", [*OPERATIONS])
def test_each_image_has_its_own_strength(name: str) -> None:
    images = photographs(6)
    strengths = torch.tensor(strengths_of("trivial", name, 32))
    strengths = strengths[torch.linspace(0, len(strengths) - 1, 6).long()]
    before = images.clone()
    together = OPERATIONS[name](images, strengths)
    alone = [OPERATIONS[name](images[i : i + 1], strengths[i : i + 1])[0] for i in range(6)]
    assert torch.equal(together, torch.stack(alone))
    assert torch.equal(images, before)
    assert together.dtype == torch.uint8


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_the_space_is_torchvisions(policy: Augment) -> None:
    space = THEIRS[policy]._AUGMENTATION_SPACE
    assert [*space] == policies.NAMES
    strengths, signed = policies._space(policy, 24, 32)
    for row, sign, (made, is_signed) in zip(strengths, signed, space.values(), strict=True):
        expected = made(31, 24, 32)
        np.testing.assert_allclose(row, 0 if expected is None else expected, rtol=1e-6, atol=1e-6)
        assert sign == is_signed


def test_draws_are_even_and_fixed_by_seed_epoch_and_sample() -> None:
    draws = policies.draw_policy("trivial", 28_000, 3, 1, 32, 32)
    counts = np.bincount(draws.operations[:, 0], minlength=14)
    np.testing.assert_allclose(counts / 28_000, 1 / 14, atol=0.006)
    rotations = draws.strengths[draws.operations == policies.NAMES.index("Rotate")]
    assert np.abs(rotations).max() == 135
    assert abs((rotations < 0).mean() - 15 / 31) < 0.05
    again = policies.draw_policy("trivial", 28_000, 3, 1, 32, 32)
    assert all(map(np.array_equal, draws, again))
    other = policies.draw_policy("trivial", 28_000, 3, 2, 32, 32)
    assert (draws.operations == other.operations).mean() < 0.1
    two = policies.draw_policy("rand", 1000, 3, 1, 32, 32)
    assert two.operations.shape == (1000, 2)
    shears = np.abs(two.strengths[two.operations == policies.NAMES.index("ShearX")])
    np.testing.assert_allclose(shears, 0.3 * 9 / 30, rtol=1e-6)


@pytest.mark.parametrize("policy", ["none", "trivial", "rand"])
def test_batches_are_what_their_samples_are(policy: Augment) -> None:
    images, parts = photographs(11, 16, 20), [4, 4, 3]
    draws = policies.draw_policy(policy, 11, 0, 0, 16, 20)
    batches = policies.grouped(draws, parts, torch.device("cpu"))
    found = [
        policies.apply(some, rounds)
        for some, rounds in zip(images.split(parts), batches, strict=True)
    ]
    expected = images.clone()
    for i, (operations, strengths) in enumerate(zip(*draws, strict=True)):
        for operation, strength in zip(operations, strengths, strict=True):
            asked = expected[i : i + 1], torch.tensor([strength])
            expected[i] = OPERATIONS[policies.NAMES[operation]](*asked)[0]
    assert torch.equal(torch.cat(found), expected)
    assert torch.equal(expected, images) == (policy == "none")
