"""Parquet files of images and labels."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading_sources import read_all

from cwerm.data import Chunk, decode, open_source
from cwerm.errors import UserError

BYTES = [f"image {index}".encode() for index in range(10)]
LABELS = [index % 3 for index in range(10)]


def write(
    path: Path, image: pa.Array | list[bytes], label: pa.Array | list[int], rows: int = 4
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": image, "label": label}), path, row_group_size=rows)


def parts_of(chunks: list[Chunk]) -> list[int]:
    """Rows of each part that the chunks become."""
    return [rows for chunk in chunks for rows in chunk.parts or (chunk.size,)]


def fails(path: Path, message: str, **columns: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        open_source(str(path), **columns)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rows", [1, 4, 5, 8, 100])
def test_chunks_are_runs_of_row_groups(tmp_path: Path, rows: int) -> None:
    write(tmp_path / "data.parquet", BYTES, LABELS)
    source = open_source(str(tmp_path / "data.parquet"))
    sizes = {1: [1] * 10, 4: [4, 4, 2], 5: [4, 4, 2], 8: [8, 2], 100: [10]}[rows]
    chunks = source.chunks("train", rows)
    assert parts_of(chunks) == sizes
    worker = pickle.loads(pickle.dumps(source))
    samples = [sample for chunk in reversed(chunks) for sample in worker.read(chunk)]
    samples.sort(key=lambda sample: sample.path)
    assert [sample.image for sample in samples] == BYTES
    assert [sample.label for sample in samples] == LABELS
    assert [sample.path for sample in samples] == [f"data.parquet[{row}]" for row in range(10)]


def test_empty_row_groups(tmp_path: Path) -> None:
    table = pa.table({"image": BYTES, "label": LABELS})
    with pq.ParquetWriter(tmp_path / "data.parquet", table.schema) as writer:
        for part in (table[:0], table[:3], table[:0], table[3:], table[:0]):
            writer.write_table(part)
    source = open_source(str(tmp_path))
    assert parts_of(source.chunks("train", 3)) == [3, 2, 2, 3]
    assert [sample.image for sample in read_all(source, rows=3)] == BYTES


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train-0.parquet", "test-0.parquet"),
        ("data/train.parquet", "data/validation.parquet"),
        ("train/0.parquet", "val/0.parquet"),
    ],
)
def test_splits_by_name(tmp_path: Path, train: str, test: str) -> None:
    write(tmp_path / train, BYTES[:7], LABELS[:7])
    write(tmp_path / test, BYTES[7:], LABELS[7:])
    source = open_source(str(tmp_path))
    assert [sample.image for sample in read_all(source)] == BYTES[:7]
    assert [sample.image for sample in read_all(source, "test")] == BYTES[7:]
    assert read_all(source, "val") == []


def test_files_without_split_names_are_all_train(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", BYTES[:5], LABELS[:5])
    write(tmp_path / "b.parquet", BYTES[5:], LABELS[5:])
    assert [sample.image for sample in read_all(open_source(str(tmp_path)))] == BYTES
    write(tmp_path / "only/test.parquet", BYTES, LABELS)
    assert len(read_all(open_source(str(tmp_path / "only/test.parquet")))) == 10


def test_hugging_face_images_and_class_names(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": b"x", "path": "a.png"}, {"bytes": None, "path": "b.png"}, None]
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    schema = pa.schema(
        [("image", kind), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    pq.write_table(
        pa.table([pa.array(rows, kind), pa.array([0, 1, 1])], schema=schema), tmp_path / "a.parquet"
    )
    source = open_source(str(tmp_path))
    assert source.class_names() == ["cat", "dog"]
    samples = [(sample.image, sample.path) for sample in read_all(source)]
    assert samples == [(b"x", "a.png"), (b"", "b.png"), (b"", "a.parquet[2]")]


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", ["tensor", "list", "large_list", "fixed"])
def test_arrays(tmp_path: Path, shape: tuple[int, ...], dtype: type, layout: str) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, np.iinfo(dtype).max, (10, *shape)).astype(dtype)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    if layout != "tensor":
        kind = pa.from_numpy_dtype(dtype)
        for size in reversed(shape):
            make = {"list": pa.list_, "large_list": pa.large_list}.get(layout)
            kind = make(kind) if make else pa.list_(kind, size)
        column = pa.array(images.tolist(), kind)
    write(tmp_path / "a.parquet", column, LABELS)
    samples = read_all(open_source(str(tmp_path)))
    assert samples[0].image.dtype == dtype
    np.testing.assert_array_equal(np.stack([sample.image for sample in samples]), images)


def test_ragged_and_missing_arrays_are_left_to_decode(tmp_path: Path) -> None:
    rows = [[[1, 2], [3, 4]], [[1, 2], [3]], [[1, 2], None], [[1, None]], [], None, [[5]]]
    column = pa.array(rows, pa.list_(pa.list_(pa.uint8())))
    write(tmp_path / "a.parquet", column, LABELS[:7], rows=7)
    samples = read_all(open_source(str(tmp_path)))
    for index in (0, 6):
        np.testing.assert_array_equal(samples[index].image, rows[index])
    for sample in samples[1:6]:
        with pytest.raises(ValueError, match=r"^array|^empty"):
            decode(sample.image)


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["a", "b", "a"]),
        pa.array(["a", "b", "a"], pa.large_string()),
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array([3, 5, 3], pa.int8()),
        pa.array([3, 5, 3], pa.uint64()),
    ],
)
def test_labels(tmp_path: Path, labels: pa.Array) -> None:
    write(tmp_path / "a.parquet", BYTES[:3], labels)
    source = open_source(str(tmp_path))
    assert [sample.label for sample in read_all(source)] == labels.to_pylist()
    assert source.class_names() is None


def test_other_columns_are_chosen_and_part_of_the_fingerprint(tmp_path: Path) -> None:
    table = pa.table({"img": BYTES, "fine": LABELS, "coarse": [0] * 10})
    pq.write_table(table, tmp_path / "a.parquet")
    fine = open_source(str(tmp_path), image_column="img", label_column="fine")
    coarse = open_source(str(tmp_path), image_column="img", label_column="coarse")
    assert [sample.label for sample in read_all(fine)] == LABELS
    assert [sample.label for sample in read_all(coarse)] == [0] * 10
    assert fine.fingerprint() != coarse.fingerprint()
    again = open_source(str(tmp_path), image_column="img", label_column="fine")
    assert fine.fingerprint() == again.fingerprint()


def test_errors(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    fails(file, f"data.source: '{file}' does not exist")
    file.write_bytes(b"no Parquet")
    fails(tmp_path, f"data.source: '{file}' is not a readable Parquet file")
    write(file, pa.array([], pa.binary()), pa.array([], pa.int64()))
    fails(file, "holds no rows")
    write(file, BYTES, LABELS)
    missing = f"data.image_column: '{file}' has no column 'img'; its columns are image, label"
    fails(tmp_path, missing, image_column="img")
    missing = f"data.label_column: '{file}' has no column 'fine'; its columns are image, label"
    fails(tmp_path, missing, label_column="fine")
    swapped = (
        f"data.label_column: column 'image' of '{file}' is binary; it must be text or integers"
    )
    fails(tmp_path, swapped, label_column="image")
    write(file, pa.array([[1, 2]]), [1])
    fails(tmp_path, f"data.image_column: column 'image' of '{file}' is list<")


def test_a_file_of_no_split_among_files_of_splits(tmp_path: Path) -> None:
    for name in ("train.parquet", "other.parquet"):
        write(tmp_path / name, BYTES, LABELS)
    fails(tmp_path, "are named train, test or val, but not 'other.parquet'; rename it")


def test_missing_labels_and_damaged_pages(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write(file, BYTES[:6], pa.array([1, 1, 1, 1, 1, None]))
    with pytest.raises(UserError, match=r"a\.parquet' has no 'label' in row 5; drop such rows"):
        read_all(open_source(str(file)))
    write(file, BYTES, LABELS)
    source = open_source(str(file))
    data = file.read_bytes()
    file.write_bytes(data[:4] + bytes(100) + data[104:])
    with pytest.raises(UserError, match=r"a\.parquet' can't be read after row 0"):
        read_all(source)


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 10, 100])
def test_a_large_row_group_is_cut_up(tmp_path: Path, rows: int) -> None:
    """pandas writes a whole table as one row group; parts must stay small all the same."""
    labels = list(range(23))
    images = [bytes([label]) for label in labels]
    table = pa.table({"image": images, "label": labels})
    with pq.ParquetWriter(tmp_path / "train.parquet", table.schema) as writer:
        writer.write_table(table.slice(0, 2))
        writer.write_table(table.slice(2, 19), row_group_size=19)
        writer.write_table(table.slice(21))
    source = open_source(str(tmp_path))
    chunks = source.chunks("train", rows)
    assert sum(chunk.size for chunk in chunks) == 23
    assert max(parts_of(chunks)) <= rows
    assert sum(parts_of(chunks)) == 23
    within = [chunk for chunk in chunks if 2 <= chunk.start < 21]
    assert len(within) <= (2 if rows == 1 else 1), "a row group is read once for all its parts"
    samples = [sample for chunk in chunks for sample in source.read(chunk)]
    assert [sample.label for sample in samples] == labels
    assert [sample.image for sample in samples] == images
    assert [sample.path for sample in samples] == [f"train.parquet[{i}]" for i in labels]
