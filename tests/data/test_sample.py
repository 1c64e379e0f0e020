"""The sample kept in the package."""

from __future__ import annotations

import gzip
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cwerm.data import decode, open_source
from cwerm.data.files.listing import list_files
from cwerm.data.parquet import Parquet
from cwerm.data.public.fashion_mnist import DEBIAN_FOLDER
from cwerm.data.sample import SAMPLE_FOLDER

COUNTS = {"train": 10_000, "test": 2_000}


def test_size_layout_and_licence() -> None:
    files = list(SAMPLE_FOLDER.glob("*.parquet"))
    assert sum(file.stat().st_size for file in files) < 6e6
    for file in files:
        metadata = pq.read_metadata(file)
        groups = range(metadata.num_row_groups)
        assert {metadata.row_group(group).num_rows for group in groups} == {1000}
    assert "2017 Zalando SE" in (SAMPLE_FOLDER / "LICENSE").read_text(encoding="utf-8")


def test_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    source = open_source("sample")
    assert source.fingerprint() == pickle.loads(pickle.dumps(source)).fingerprint()
    shutil.copytree(SAMPLE_FOLDER, tmp_path / "copy")
    copy = Parquet(list_files(str(tmp_path / "copy")))
    assert copy.class_names() == source.class_names()
    assert copy.chunks("train", 1000) == source.chunks("train", 1000)


def test_reading_the_sample_imports_no_torch() -> None:
    script = (
        "import sys; from cwerm.data import open_source, decode; source = open_source('sample');"
        "decode(next(source.read(source.chunks('test', 1)[0])).image);"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_sample_equals_debians_files(split: str, prefix: str) -> None:
    def raw(name: str, header: int) -> np.ndarray:
        data = gzip.decompress((DEBIAN_FOLDER / f"{prefix}-{name}-ubyte.gz").read_bytes())
        return np.frombuffer(data, np.uint8, offset=header)

    images, labels = raw("images-idx3", 16).reshape(-1, 28, 28), raw("labels-idx1", 8)
    source = open_source("sample")
    samples = [s for chunk in source.chunks(split, 1000) for s in source.read(chunk)]
    names = [re.fullmatch(rf"{split}-images\[(\d+)\]", sample.path) for sample in samples]
    indices = [int(name.group(1)) for name in names if name]
    assert len(set(indices)) == len(samples) == COUNTS[split]
    names_of = open_source("fashion_mnist", root=str(DEBIAN_FOLDER)).class_names()
    assert [sample.label for sample in samples] == [names_of[i] for i in labels[indices]]
    assert np.bincount(labels[indices]).tolist() == [COUNTS[split] // 10] * 10
    decoded = np.stack([np.asarray(decode(sample.image)) for sample in samples])
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], images[indices])


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)
def test_drawing_again_gives_the_same_images_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    import make_sample  # type: ignore[import-not-found]

    source = open_source("sample")
    origin = open_source("fashion_mnist", root=str(DEBIAN_FOLDER))
    for split, per_class in make_sample.IMAGES_PER_CLASS.items():
        drawn = make_sample.draw(origin.arrays(split)[1], per_class)
        paths = [s.path for chunk in source.chunks(split, 1000) for s in source.read(chunk)]
        assert paths == [f"{split}-images[{index}]" for index in drawn]
