"""Columns of images and labels as different tools write them."""

from __future__ import annotations

import decimal
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.parquet_files import labels, png, put, read

from cwerm.data import decode, open_source
from cwerm.errors import UserError

PNGS = [png(row) for row in range(4)]
TEXT = ["cat", "dog", "cat", "dog"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(PNGS, pa.binary_view()),
        pa.array(PNGS, pa.large_binary()),
        pa.array([data.ljust(80, b"\0") for data in PNGS], pa.binary(80)),
        pa.array(PNGS).dictionary_encode(),
        pa.array([{"bytes": data} for data in PNGS], pa.struct([("bytes", pa.large_binary())])),
        pa.array(
            [{"path": None, "bytes": data} for data in PNGS],
            pa.struct([("path", pa.string_view()), ("bytes", pa.binary_view())]),
        ),
    ],
    ids=lambda column: str(column.type)[:30],
)
def test_encoded_images_however_they_are_typed(tmp_path: Path, column: pa.Array) -> None:
    put(tmp_path / "a.parquet", [0, 1, 0, 1], images=column)
    found = [sample.image for sample in read(open_source(str(tmp_path)))]
    assert [image[: len(data)] for image, data in zip(found, PNGS, strict=True)] == PNGS


def arrays(dtype: type = np.uint8, *, shapes: bool = False) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = [(5 + (row if shapes else 0), 4, 3) for row in range(4)]
    return [generator.integers(0, 256, size).astype(dtype) for size in sizes]


def ray_tensors(kind: str) -> tuple[pa.Array, list[np.ndarray]]:
    from ray.data.extensions import (
        ArrowTensorArray,
        ArrowTensorType,
        ArrowTensorTypeV2,
        ArrowVariableShapedTensorArray,
    )

    if kind == "shapes":
        images = arrays(shapes=True)
        return ArrowVariableShapedTensorArray.from_numpy(images), images
    images = arrays()
    flat = [image.ravel() for image in images]
    make, lists = {
        "v1": (ArrowTensorType, pa.list_(pa.uint8())),
        "v2": (ArrowTensorTypeV2, pa.large_list(pa.uint8())),
    }[kind]
    storage = pa.array(flat, lists)
    column = ArrowTensorArray.from_storage(make(images[0].shape, pa.uint8()), storage)
    return column, images


@pytest.mark.parametrize("kind", ["v1", "v2", "shapes"])
@pytest.mark.parametrize("known", [True, False], ids=["type is known", "type is unknown"])
def test_tensors_of_ray_data(tmp_path: Path, kind: str, known: bool) -> None:
    """Read alike whether or not Ray Data has registered its types in the process that reads."""
    column, images = ray_tensors(kind)
    put(tmp_path / "a.parquet", TEXT, images=column)
    if known:
        found = [sample.image for sample in read(open_source(str(tmp_path)))]
    else:
        script = (
            "import sys, pickle; from cwerm.data import open_source; "
            f"source = open_source({str(tmp_path)!r}); (chunk,) = source.chunks('train', 9); "
            "images = [s.image for s in source.read(chunk)]; assert 'ray' not in sys.modules; "
            "sys.stdout.buffer.write(pickle.dumps(images))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        import pickle

        found = pickle.loads(done.stdout)
    for image, expected in zip(found, images, strict=True):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (2, 0, 1), (1, 2, 0)])
def test_tensors_whose_axes_are_stored_in_another_order(
    tmp_path: Path, axes: tuple[int, ...]
) -> None:
    images = np.stack(arrays())
    stored = np.ascontiguousarray(images.transpose(0, *(axis + 1 for axis in axes)))
    view = stored.transpose(0, *(place + 1 for place in np.argsort(axes)))
    put(tmp_path / "a.parquet", TEXT, images=pa.FixedShapeTensorArray.from_numpy_ndarray(view))
    if axes in [(2, 0, 1), (1, 2, 0)]:  # pyarrow reads back another image
        with pytest.raises(UserError, match=r"'image' .* is arrow.fixed_shape_tensor"):
            open_source(str(tmp_path))
    else:
        found = np.stack([sample.image for sample in read(open_source(str(tmp_path)))])
        np.testing.assert_array_equal(found, images)


def test_list_views(tmp_path: Path) -> None:
    kind = pa.list_view(pa.list_view(pa.uint8()))
    images = [[[1, 2, 3], [4, 5, 6]]] * 4
    put(tmp_path / "a.parquet", TEXT, images=pa.array(images, kind))
    for sample in read(open_source(str(tmp_path))):
        np.testing.assert_array_equal(sample.image, images[0])


def test_shapes_that_do_not_fit_are_left_to_decode(tmp_path: Path) -> None:
    from ray.data.extensions import ArrowVariableShapedTensorType

    kind = ArrowVariableShapedTensorType(pa.uint8(), 3)
    rows = [{"data": [1, 2], "shape": s} for s in ([2**40, 2**40, 3], [1, 2], [-1, -2], [2], [])]
    rows += [{"data": [1, 2], "shape": None}, {"data": None, "shape": [1, 2]}]
    column = pa.ExtensionArray.from_storage(kind, pa.array(rows, kind.storage_type))
    put(tmp_path / "a.parquet", list("abababa"), images=column)
    samples = read(open_source(str(tmp_path)))
    np.testing.assert_array_equal(samples[1].image, [[1, 2]])
    assert samples[6].problem == "no bytes in the column"
    for sample in (samples[i] for i in (0, 2, 3, 4, 5)):
        with pytest.raises(ValueError, match=r"^array of shape"):
            decode(sample.image)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(TEXT, pa.string_view()), TEXT),
        (pa.array(TEXT).dictionary_encode(), TEXT),
        (pa.array([name.encode() for name in TEXT]), TEXT),
        (pa.array(["caf\u0065\u0301", "dog"] * 2), ["caf\u00e9", "dog"] * 2),
        (pa.array([0.0, 1.0, 0.0, 12.0]), [0, 1, 0, 12]),
        (pa.array([0, 1, 0, 12], pa.float16()), [0, 1, 0, 12]),
        (pa.array([decimal.Decimal("1.0"), decimal.Decimal("7.0")] * 2), [1, 7, 1, 7]),
        (pa.array([True, False] * 2), ["true", "false"] * 2),
        (pa.array([2**64 - 1, 5] * 2, pa.uint64()), [2**64 - 1, 5] * 2),
        (pa.array([-(2**63), 2**63 - 1] * 2), [-(2**63), 2**63 - 1] * 2),
        (pa.array([3, 5, 3, 5], pa.int64()).dictionary_encode(), [3, 5, 3, 5]),
    ],
    ids=lambda value: str(getattr(value, "type", ""))[:24],
)
def test_labels_are_text_or_whole_numbers(
    tmp_path: Path, column: pa.Array, expected: list[Any]
) -> None:
    put(tmp_path / "a.parquet", column, images=PNGS)
    assert labels(open_source(str(tmp_path))) == expected


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([0, 1, None, 0]), "has no 'label' in row 2; drop such rows"),
        (pa.array([0.0, 1.0, float("nan"), 0.0]), "has no 'label' in row 2"),
        (pa.array(["a", "b", "", "a"]), "has no 'label' in row 2"),
        (pa.array([0.0, 0.5, 1.0, 0.0]), "in row 1: label 0.5 is no whole number"),
        (pa.array([0.0, float("inf"), 1.0, 0.0]), "in row 1: label inf is no whole number"),
        (pa.array([b"a", b"\xff\xfe", b"a", b"b"]), "in row 1: its bytes are no text"),
        (pa.array([[0], [1], [0], [1]]), "is list<element: int64>; it must be text or integers"),
        (pa.nulls(4), "is null; it must be text or integers"),
        (pa.array([{"a": 1}] * 4), "it must be text or integers"),
        (pa.array([0, 1, 0, 1], pa.timestamp("s")), "it must be text or integers"),
    ],
    ids=lambda value: str(getattr(value, "type", ""))[:24],
)
def test_other_labels_are_one_line(tmp_path: Path, column: pa.Array, message: str) -> None:
    file = put(tmp_path / "a.parquet", column, images=PNGS)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read(open_source(str(tmp_path)))
    assert str(error.value).startswith("data.label_column: ")
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", [2, -2, 2**40])
def test_integers_that_name_no_class(tmp_path: Path, label: int) -> None:
    put(tmp_path / "a.parquet", [0, 1, label], names=["cat", "dog"])
    with pytest.raises(UserError, match=f"row 2: label {label} is not among the 2 class names"):
        read(open_source(str(tmp_path)))


def struct(rows: list[tuple[bytes | None, str | None]]) -> pa.Array:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": data, "path": path} for data, path in rows], kind)


def outside(root: Path) -> list[str]:
    """Paths that lead out of the source's folder."""
    (root / "secret.png").write_bytes(png(1))
    (root / "data/link.png").symlink_to(root / "secret.png")
    (root / "data/.hidden").mkdir()
    (root / "data/.hidden/b.png").write_bytes(png(1))
    (root / "data-2").mkdir()
    (root / "data-2/b.png").write_bytes(png(1))
    return [
        *("../secret.png", str(root / "secret.png"), "link.png", "pictures/../../secret.png"),
        *(str(root / "data-2/b.png"), "file:///etc/hostname", "s3://bucket/b.png", "no.png", "."),
        *(f"{root}/data/../secret.png", "pictures", "a\0b"),
        ".hidden/b.png",
    ]


def test_paths_are_read_below_the_source_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for place in ("pictures/a.png", "sub/beside.png"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(png(len(place)))
    good = ["pictures/a.png", str(folder / "pictures/a.png"), "beside.png", "../pictures/a.png"]
    bad = outside(tmp_path)
    images = struct([(None, path) for path in (*good, *bad)] + [(None, None), (b"", "x")])
    put(folder / "sub/train.parquet", ["a"] * len(images), images=images)
    source = open_source(str(folder))
    samples = read(source)
    assert [sample.image for sample in samples[:4]] == [png(14), png(14), png(14), png(14)]
    for sample in samples[4:-2]:
        assert sample.image == b""
        assert sample.problem.startswith("no bytes in the column, and the path there is no file")
    assert samples[-2].problem == "no bytes in the column"
    assert (samples[-1].image, samples[-1].problem) == (b"", ""), (
        "an empty file, for decode to name"
    )
    (remark,) = source.remarks()
    assert "beside the Parquet files are read only where 'image' names them" in remark

    before = source.fingerprint()
    (folder / "pictures/a.png").write_bytes(png(9) + b" ")
    assert open_source(str(folder)).fingerprint() != before, "what is read counts as content"


def test_a_row_is_named_by_file_and_number(tmp_path: Path) -> None:
    images = struct([(PNGS[0], "000.png"), (PNGS[1], "001.png"), (PNGS[2], None)])
    for shard in range(2):
        put(tmp_path / f"train-{shard:05d}.parquet", [0, 1, 0], images=images)
    samples = read(open_source(str(tmp_path)))
    assert [sample.path for sample in samples[:3]] == [
        "000.png",
        "001.png",
        "train-00000.parquet[2]",
    ]
    assert [s.place for s in samples] == [
        f"train-{shard:05d}.parquet[{row}]" for shard in range(2) for row in range(3)
    ]


@pytest.mark.parametrize(
    "write",
    [
        lambda: pa.array([[1.0, 2.0]] * 4),
        lambda: pa.array(["a.png"] * 4),
        lambda: pa.array([{"path": "a.png"}] * 4),
        lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((4, 2, 2), np.float32)),
        lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((4, 2, 2, 2, 2), np.uint8)),
    ],
)
def test_columns_that_hold_no_images(tmp_path: Path, write: Callable[[], pa.Array]) -> None:
    put(tmp_path / "a.parquet", TEXT, images=write())
    message = r"^data\.image_column: column 'image' of .*a\.parquet' is .*; it must be encoded"
    with pytest.raises(UserError, match=message) as error:
        open_source(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    columns = [pa.array(PNGS), pa.array(TEXT), pa.array(PNGS)]
    pq.write_table(pa.table(columns, ["image", "label", "image"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has the column 'image' twice; rename one"):
        open_source(str(tmp_path))
