"""Scaling to squares: very long images cost memory for the part that is used, others are as ever."""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwerm.algorithms.networks.preprocessing import RESAMPLING, InputSpec, preprocess
from cwerm.stages import common
from cwerm.stages.pixels import to_square
from cwerm.stages.train.parts import StoredImages
from stages.conftest import Chain

GENERATOR = np.random.default_rng(0)
SPEC = InputSpec(56, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), "bicubic", 0.875, "center")


def picture(width: int, height: int) -> Image.Image:
    """Noise, of so little contrast that no step of scaling leaves 0..255 and is cut off."""
    return Image.fromarray(GENERATOR.integers(100, 160, (height, width, 3), dtype=np.uint8))


def middle(
    image: Image.Image, scaled: tuple[int, int], left: int, top: int, side: int
) -> np.ndarray:
    """Scaled as a whole, then cut, which is what both stages mean."""
    whole = image.resize(scaled, RESAMPLING["bicubic"])
    return np.asarray(whole.crop((left, top, left + side, top + side))).astype(int)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (33, 33), (300, 20), (500, 3), (3, 251)])
def test_the_part_is_that_of_the_whole(size: tuple[int, int]) -> None:
    image = picture(*size)
    allowed = 1 if max(size) > 16 * min(size) else 0
    scaled = round(size[0] * 48 / min(size)), round(size[1] * 48 / min(size))
    expected = middle(image, scaled, (scaled[0] - 48) // 2, (scaled[1] - 48) // 2, 48)
    assert np.abs(to_square(image, 48) - expected).max() <= allowed

    scaled = int(size[0] * 64 / min(size)), int(size[1] * 64 / min(size))
    expected = middle(image, scaled, round((scaled[0] - 56) / 2), round((scaled[1] - 56) / 2), 56)
    assert np.abs(preprocess(image, SPEC) - expected).max() <= allowed


def test_the_square_is_cut_from_the_centre() -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 255
    found = to_square(Image.fromarray(image), 20)
    assert (found == 255).all()
    assert to_square(Image.fromarray(image), 10).shape == (10, 10, 3)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A quarter of a gigabyte more than there is now; what takes more fails with `MemoryError`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + 2**28
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_a_line_of_pixels_takes_little_memory(size: tuple[int, int], mode: str) -> None:
    image = Image.new("RGB", size, (200, 10, 10))
    spec = InputSpec(224, SPEC.mean, SPEC.std, "bicubic", 0.9, mode)
    assert (preprocess(image, spec) == [200, 10, 10]).all(axis=2).any()
    assert (to_square(image, 224) == [200, 10, 10]).all()


def test_pixels_are_those_of_pillow(chain: Chain) -> None:
    rows = chain.table("ingest", "test_images").to_pylist()
    asked = chain.store, chain.made["ingest"], "test_images", np.arange(len(rows)), 28
    found = np.empty((len(rows), 3, 28, 28), np.uint8)
    StoredImages(*asked).decode_into(found, threads=2)
    for index, row in enumerate(rows):
        expected = np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB"))
        assert np.array_equal(found[index].transpose(1, 2, 0), expected)


def test_taken_rows_do_not_keep_their_parts_in_memory(chain: Chain) -> None:
    ids = np.array([3, 120, 121, 399])
    rows = common.take_rows(chain.store, chain.made["extract"], "features", "feature", ids)
    features = common.column(chain.table("extract", "features"), "feature")
    assert np.array_equal(np.stack(rows), features[ids])
    held = sum(row.nbytes if row.base is None else row.base.nbytes for row in rows)
    assert held <= 2 * len(ids) * features[0].nbytes
