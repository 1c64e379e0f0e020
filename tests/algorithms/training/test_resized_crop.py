"""The random resized crop against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from cwerm.algorithms.training.augmentation.resized_crop import crop_windows, resized_crop


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40)])
def test_a_window_is_enlarged_as_torchvision_does(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (40, 3, height, width)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    windows = crop_windows(40, 1, 2, height, width)
    found = resized_crop(images, torch.from_numpy(windows))
    for image, window, mine in zip(images, windows.tolist(), found, strict=True):
        expected = v2.functional.resized_crop(image, *window, [height, width], antialias=True)
        assert (mine.int() - expected.int()).abs().max() <= 1
    whole = torch.tensor([[0, 0, height, width]]).expand(40, -1)
    assert torch.equal(resized_crop(images, whole), images)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (30, 64), (90, 30)])
def test_windows_are_spread_as_torchvisions(height: int, width: int) -> None:
    found = crop_windows(4000, 5, 0, height, width)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(10)
    drawn = [theirs.make_params([image]) for _ in range(4000)]
    expected = np.array([[d[key] for key in ("top", "left", "height", "width")] for d in drawn])
    spread = expected.std(axis=0) + 1e-9
    assert (np.abs(found.mean(axis=0) - expected.mean(axis=0)) / spread < 0.1).all()
    np.testing.assert_allclose(found.std(axis=0), expected.std(axis=0), rtol=0.06)
    assert (found[:, :2] >= 0).all()
    assert (found[:, :2] + found[:, 2:] <= [height, width]).all()


def test_windows_are_fixed_by_seed_and_epoch() -> None:
    first = crop_windows(100, 1, 2, 32, 32)
    np.testing.assert_array_equal(crop_windows(100, 1, 2, 32, 32), first)
    for seed, epoch in ((1, 3), (2, 2)):
        assert (crop_windows(100, seed, epoch, 32, 32) != first).any(axis=1).mean() > 0.9
