"""Which files are Parquet, which split they are, and what lies beside them."""

from __future__ import annotations

import gzip
import re
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.parquet_files import labels, png, put, read

from cwerm.data import open_source
from cwerm.data.folders.image_folder import ImageFolder
from cwerm.data.parquet import Parquet
from cwerm.errors import UserError


def fails(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read(open_source(str(path)))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("data.")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("flowers-train.parquet", "flowers-test.parquet"),
        ("Flowers_TRAIN.parquet", "Flowers_TEST.parquet"),
        ("data/train-00000-of-00001-ab12.parquet", "data/validation-00000-of-00001-cd34.parquet"),
        ("Training/0.parquet", "Testing/0.parquet"),
        ("split=train/part-0.parquet", "split=test/part-0.parquet"),
        ("contest/train.snappy.parquet", "contest/test.snappy.parquet"),
        ("year=2024/train.pq", "year=2024/test.PQ"),
        ("train.parquet.gzip", "test.parquet.gzip"),
    ],
)
def test_splits_by_whole_words(tmp_path: Path, train: str, test: str) -> None:
    put(tmp_path / train, [0, 1, 0])
    put(tmp_path / test, [1, 0])
    source = open_source(str(tmp_path))
    assert (labels(source), labels(source, "test")) == ([0, 1, 0], [1, 0])
    assert source.origin("train") == train


@pytest.mark.parametrize("name", ["contest.parquet", "trainer.parquet", "latest.parquet"])
def test_parts_of_words_are_no_splits(tmp_path: Path, name: str) -> None:
    put(tmp_path / name, [0, 1, 0])
    put(tmp_path / "b.parquet", [1, 0])
    assert len(read(open_source(str(tmp_path)))) == 5


def test_two_splits_in_one_name(tmp_path: Path) -> None:
    for name in ("train-test.parquet", "train.parquet"):
        put(tmp_path / name, [0, 1])
    fails(tmp_path, "'train-test.parquet': 'train-test' names two splits.*; rename it")


def test_labels_in_the_names_of_folders(tmp_path: Path) -> None:
    """As Spark and others partition a table; a class may be called "test"."""
    for place, count in (("label=test", 3), ("label=a%2Fb", 2)):
        folder = tmp_path / place
        folder.mkdir()
        pq.write_table(pa.table({"image": [png(i) for i in range(count)]}), folder / "0.parquet")
    assert labels(open_source(str(tmp_path))) == ["a/b"] * 2 + ["test"] * 3
    shutil.copytree(tmp_path / "label=test", tmp_path / "label=__HIVE_DEFAULT_PARTITION__")
    fails(tmp_path, "has no 'label' in row 0; drop such rows")


@pytest.mark.parametrize("missing", [-1, None])
@pytest.mark.parametrize("statistics", [True, False])
def test_hidden_test_labels(tmp_path: Path, missing: int | None, statistics: bool) -> None:
    names = ["cat", "dog"]
    put(tmp_path / "train.parquet", [0, 1, 0], names=names)
    hidden = pa.array([missing] * 4, pa.int64())
    put(tmp_path / "test.parquet", hidden, names=names, write_statistics=statistics)
    fails(tmp_path, "the test split below .* has no labels .*; move it away to have .* drawn")
    put(tmp_path / "validation.parquet", [1, 1], names=names)
    source = open_source(str(tmp_path))
    assert labels(source, "test") == ["dog", "dog"]
    (remark,) = source.remarks()
    assert "has no labels (-1 or none in all rows): the validation split is the test" in remark


def test_some_hidden_labels_are_one_line(tmp_path: Path) -> None:
    put(tmp_path / "train.parquet", [0, 1, -1], names=["cat", "dog"])
    fails(tmp_path, r"train\.parquet' has no 'label' \(-1\) in row 2; drop such rows")


def test_minus_one_is_a_class_where_there_are_no_names(tmp_path: Path) -> None:
    put(tmp_path / "train.parquet", [1, -1, 1])
    put(tmp_path / "test.parquet", [1, -1])
    assert labels(open_source(str(tmp_path)), "test") == [1, -1]


def test_what_writers_leave_beside_the_data(tmp_path: Path) -> None:
    put(tmp_path / "part-0.parquet", [0, 1])
    for name in ("_SUCCESS", ".part-0.parquet.crc", "part-0.parquet.crc", "README.md"):
        (tmp_path / name).write_bytes(b"\1\2")
    shutil.copy(tmp_path / "part-0.parquet", tmp_path / "_metadata")
    put(tmp_path / "_temporary/0/part-0.parquet", [0, 1])
    put(tmp_path / "_delta_log/00.checkpoint.parquet", [0, 1])
    put(tmp_path / "empty.parquet", pa.array([], pa.null()), images=pa.array([], pa.null()))
    assert len(read(open_source(str(tmp_path)))) == 2


def test_an_empty_file_is_of_no_split(tmp_path: Path) -> None:
    for name, rows in (("train", [0, 1]), ("test", []), ("validation", [1])):
        put(tmp_path / f"{name}.parquet", pa.array(rows, pa.int64()), images=[png(1)] * len(rows))
    assert labels(open_source(str(tmp_path)), "test") == [1]


@pytest.mark.parametrize(
    "name", ["a.pq", "a.parq", "a.PARQUET", "a.parquet.gzip", "a.parquet.snappy", "a", "a.dat"]
)
@pytest.mark.parametrize("single", [True, False])
def test_parquet_by_other_names(tmp_path: Path, name: str, single: bool) -> None:
    file = put(tmp_path / name, [0, 1, 0])
    source = open_source(str(file if single else tmp_path))
    assert isinstance(source, Parquet)
    assert labels(source) == [0, 1, 0]


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("cat/0.png", png(0))


@pytest.mark.parametrize("name", ["data.zip", "DATA.ZIP", "data", "data.parquet"])
def test_an_archive(tmp_path: Path, name: str) -> None:
    archive(tmp_path / name)
    fails(tmp_path / name, f"'{tmp_path / name}' is an archive; unpack it and give the folder")


def test_archives_of_other_kinds(tmp_path: Path) -> None:
    put(tmp_path / "x/0.parquet", [0, 1])
    for form, name in (("tar", "a.tar"), ("gztar", "a.tar.gz"), ("xztar", "a.tar.xz")):
        shutil.make_archive(str(tmp_path / "a"), form, tmp_path / "x")
        shutil.copy(tmp_path / name, tmp_path / "bare")
        fails(tmp_path / name, "unpack it and" if form != "tar" else "unpack an archive of class")
        for path in [tmp_path / "bare"]:
            fails(path, "is an archive; unpack it and give the folder")
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(40))
    fails(tmp_path / "a.7z", "is an archive")
    with gzip.open(tmp_path / "b.parquet.gz", "wb") as written:
        written.write((tmp_path / "x/0.parquet").read_bytes())
    fails(tmp_path / "b.parquet.gz", "is an archive; unpack it")


def test_other_single_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    fails(tmp_path / "a.png", "is one image; give the folder that holds the class folders")
    (tmp_path / "a.csv").write_text("path,label\n")
    fails(tmp_path / "a.csv", "has no rows")
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    fails(tmp_path / "a.xlsx", "is no table that is read; save it as CSV with the columns path")
    (tmp_path / "empty").touch()
    fails(tmp_path / "empty", "is no Parquet file")


def test_class_folders_with_a_side_table(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(png(1))
    pq.write_table(pa.table({"file_name": ["cat/0.png"]}), tmp_path / "metadata.parquet")
    source = open_source(str(tmp_path))
    assert isinstance(source, ImageFolder)
    assert any(".parquet" in remark for remark in source.remarks()), "it is named as left out"
    put(tmp_path / "train.parquet", [0, 1, 0])
    fails(tmp_path, "metadata.parquet' has no column 'image'; its columns are file_name")
    (tmp_path / "metadata.parquet").unlink()
    source = open_source(str(tmp_path))
    assert (labels(source), source.remarks()) == (
        [0, 1, 0],
        ["2 file(s) beside the Parquet files are left out"],
    )


def damaged(tmp_path: Path, row_group: int) -> Path:
    """Row groups of 10 rows, zeros in the middle of one of them."""
    path = put(tmp_path / "a.parquet", [0, 1] * 20, row_group_size=10, compression="zstd")
    column = pq.read_metadata(path).row_group(row_group).column(0)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start + 20 : start + column.total_compressed_size] = bytes(
        column.total_compressed_size - 20
    )
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("row_group", [0, 2])
def test_a_damaged_page(tmp_path: Path, row_group: int) -> None:
    path = damaged(tmp_path, row_group)
    after = row_group * 10
    fails(
        path, f"'{path}' can't be read after row {after}, in row group {row_group} .*; replace it"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"", "not a readable Parquet file"),
        (lambda data: data[:-100], "not a readable Parquet file"),
        (lambda data: data[:-60] + bytes(52) + data[-8:], "not a readable Parquet file"),
        (lambda data: data[:-4] + b"PARE", r"its footer is encrypted"),
        (lambda data: b"no Parquet at all", "not a readable Parquet file"),
    ],
)
def test_a_damaged_footer(tmp_path: Path, change: object, reason: str) -> None:
    path = put(tmp_path / "train.parquet", [0, 1, 0])
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    put(tmp_path / "test.parquet", [0, 1])
    fails(tmp_path, f"'{re.escape(str(path))}' .*{reason}")


def test_a_file_that_has_other_rows_than_when_it_was_opened(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", [0, 1, 0])
    source = open_source(str(tmp_path))
    put(tmp_path / "a.parquet", [0])
    with pytest.raises(UserError, match="has changed since it was opened; run again"):
        read(source)


def test_of_a_wide_table_the_columns_needed_are_read(tmp_path: Path) -> None:
    """The pages of all others are garbage, and nobody minds."""
    columns = {"image": [png(i) for i in range(20)], "label": [0, 1] * 10}
    other = {f"embedding-{i}": [bytes([i]) * 500] * 20 for i in range(30)}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({**other, **columns}), path)
    metadata = pq.read_metadata(path).row_group(0)
    data = bytearray(path.read_bytes())
    end = metadata.column(29).dictionary_page_offset + metadata.column(29).total_compressed_size
    data[4:end] = bytes(end - 4)
    path.write_bytes(data)
    assert len(read(open_source(str(path)))) == 20
