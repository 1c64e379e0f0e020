"""Tables of paths and labels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from object_store import s3_prefix  # noqa: F401
from reading_sources import fails, read_all

from cwerm.data import Sample, open_source
from cwerm.data.manifests.source import below_root
from cwerm.errors import UserError
from cwerm.store.storage import open_storage

ROWS = [
    ("a/1.png", "cat"),
    ("a/2.png", "dog"),
    ("b, c/3.png", "cat"),
    ("a/ü.png", "d;og"),
]


def write_images(root: Path) -> None:
    """Files whose content is their own path."""
    for path, _ in ROWS:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def as_csv(place: Path, rows: list[dict[str, Any]], sign: str = ",") -> None:
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    quoted = [[f'"{cell}"' for cell in line] for line in lines]
    place.write_text("".join(f"{sign.join(line)}\n" for line in quoted))


def write_manifest(place: Path, rows: list[dict[str, Any]]) -> Path:
    match place.suffix:
        case ".csv":
            as_csv(place, rows)
        case ".tsv":
            as_csv(place, rows, "\t")
        case ".jsonl":
            place.write_text("\n\n".join(map(json.dumps, rows)))
        case ".json":
            place.write_text(json.dumps(rows))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), place)
    return place


def usual(column: str = "path") -> list[dict[str, Any]]:
    return [{"note": "x", column: path, "label": label} for path, label in ROWS]


def in_order(samples: list[Sample]) -> list[tuple[str, str | int]]:
    """Path and label of each, sorted by path."""
    return sorted((sample.path, sample.label) for sample in samples)


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.json", "m.parquet"])
@pytest.mark.parametrize("column", ["path", "file_name", "image"])
def test_each_kind_of_table(tmp_path: Path, name: str, column: str) -> None:
    write_images(tmp_path)
    source = open_source(str(write_manifest(tmp_path / name, usual(column))))
    samples = read_all(source)
    assert in_order(samples) == sorted(ROWS)
    assert all(sample.image == sample.path.encode() for sample in samples)
    assert source.class_names() is None
    assert source.origin("train") == name
    assert source.remarks() == [f"columns {column} and label; paths below '{tmp_path}'"]


def test_as_programs_for_tables_write_it(tmp_path: Path) -> None:
    write_images(tmp_path)
    text = "\ufefffile;label\r\n" + "".join(f'{path};"{label}"\r\n' for path, label in ROWS)
    (tmp_path / "m.csv").write_bytes(text.encode())
    samples = read_all(open_source(str(tmp_path / "m.csv")))
    assert in_order(samples) == sorted(ROWS)


def test_numbers_as_labels(tmp_path: Path) -> None:
    write_images(tmp_path)
    rows = [{"path": path, "label": number} for number, (path, _) in enumerate(ROWS)]
    for name, kind in (("m.jsonl", int), ("m.csv", str)):
        samples = read_all(open_source(str(write_manifest(tmp_path / name, rows))))
        assert in_order(samples) == sorted((row["path"], kind(row["label"])) for row in rows)


def test_splits(tmp_path: Path) -> None:
    write_images(tmp_path)
    splits = ["Training", "val", "train", "val"]
    rows = [{**row, "split": split} for row, split in zip(usual(), splits, strict=True)]
    source = open_source(str(write_manifest(tmp_path / "m.csv", rows)))
    assert {s.path for s in read_all(source)} == {ROWS[0][0], ROWS[2][0]}
    assert {s.path for s in read_all(source, "test")} == {ROWS[1][0], ROWS[3][0]}
    assert source.origin("test") == "m.csv, split test"


def test_whole_paths_within_the_root(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    kinds = [str(tmp_path / "images"), ".", f"file://{tmp_path}/images", "../images"]
    rows = [
        {"path": f"{kind}/{path}", "label": label}
        for kind, (path, label) in zip(kinds, ROWS, strict=True)
    ]
    place = write_manifest(tmp_path / "m.csv", rows)
    samples = read_all(open_source(str(place), root=str(tmp_path / "images")))
    found = {sample.path: sample.image for sample in samples}
    assert found == {row["path"]: path.encode() for row, (path, _) in zip(rows, ROWS, strict=True)}
    fails(place, "'../images/a/ü.png'", "lies outside of", "data.root")


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "a/../../x", "s3://other/x.png", "."]
)
def test_no_path_leaves_the_root(tmp_path: Path, path: str) -> None:
    write_images(tmp_path / "data")
    (tmp_path / "secret.png").write_text("secret")
    rows = [*usual(), {"note": "", "path": path, "label": "cat"}]
    place = write_manifest(tmp_path / "data" / "m.csv", rows)
    fails(place, f"names '{path}', which lies outside of", "data.root")


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "/"]), min_size=1, max_size=6))
def test_what_is_below_the_root(parts: list[str]) -> None:
    """As the operating system's own rules say."""
    path, root = "/".join(parts), "/data/a"
    whole = os.path.normpath(os.path.join(root, path))
    expected = os.path.relpath(whole, root) if whole.startswith(f"{root}/") else None
    assert below_root(path, root) == expected
    assert below_root(path, "s3://data/a") == (None if path.startswith("/") else expected)


def test_a_row_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    write_images(tmp_path)
    rows = [*usual(), usual()[0], {"note": "", "path": "./a/2.png", "label": "dog"}]
    source = open_source(str(write_manifest(tmp_path / "m.csv", rows)))
    assert len(read_all(source)) == len(ROWS) + 1
    assert source.remarks()[1:] == ["1 file(s) are named in two ways"]


def test_the_content_and_the_labels_count(tmp_path: Path) -> None:
    write_images(tmp_path)
    prints = [open_source(str(write_manifest(tmp_path / "m.csv", usual()))).fingerprint()]
    prints.append(open_source(str(write_manifest(tmp_path / "m.csv", usual()))).fingerprint())
    changed = usual()
    changed[0]["label"] = "dog"
    prints.append(open_source(str(write_manifest(tmp_path / "m.csv", changed))).fingerprint())
    (tmp_path / ROWS[0][0]).write_text("another")
    prints.append(open_source(str(tmp_path / "m.csv")).fingerprint())
    assert prints[0] == prints[1]
    assert len({*prints}) == 3


def row(**changes: Any) -> list[dict[str, Any]]:
    return [*usual(), {"note": "", "path": "a/1.png", "label": "cat", **changes}]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (row(label="dog"), ("row 5: 'a/1.png' stands there with two labels",)),
        (row(path="a/9.png"), ("names 'a/9.png'", "no such file")),
        (row(path="a"), ("names 'a'", "no such file")),
        (row(path=""), ("row 5: has no text in column 'path'",)),
        (row(path=7), ("row 5: has no text in column 'path'",)),
        (row(label=None), ("row 5: has no label in column 'label'",)),
        (row(label=""), ("row 5: has no label",)),
        (row(label=1.5), ("row 5: its label 1.5 is neither text nor a whole number",)),
        (row(label=True), ("row 5: its label True is neither",)),
        ([*usual(), ["a/1.png"]], ("row 5: is no object",)),
        ([], ("has no column of paths",)),
        ([{"pth": "a/1.png", "label": "x"}], ("no column of paths", "did you mean 'pth'?")),
        ([{"path": "a/1.png", "class": "x"}], ("no column 'label'", "data.label_column", "class")),
        ([{"path": "a/1.png", "label": "x", "split": "fold 3"}], ("'fold 3' in column 'split'",)),
        ([{"path": "a/1.png", "label": "x", "split": "test"}], ("no training images",)),
    ],
)
def test_a_mistake_is_told_by_its_row(tmp_path: Path, rows: Any, words: tuple[str, ...]) -> None:
    write_images(tmp_path)
    place = tmp_path / "m.json"
    place.write_text(json.dumps(rows))
    fails(place, f"'{place}'", *words)


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("m.csv", b"", "has no column of paths"),
        ("m.csv", b"path,label\n", "has no rows"),
        ("m.csv", b'path,label\n"a,cat\n', "unexpected end of data"),
        ("m.csv", b"path,label\na/1.png\n", "line 2: has no label"),
        ("m.csv", b"path,label\n\xff,cat\n", "is no text in UTF-8"),
        ("m.jsonl", b'{"path": "a/1.png", "label": "cat"}\n{"path"', "line 2: is no JSON"),
        ("m.json", b"{}", "is no list of objects"),
        ("m.json", b"[", "is no JSON"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, data: bytes, word: str) -> None:
    write_images(tmp_path)
    (tmp_path / name).write_bytes(data)
    fails(tmp_path / name, word)


def test_columns_of_the_job(tmp_path: Path) -> None:
    write_images(tmp_path)
    rows = [{"label": "no", "picture": path, "kind": label} for path, label in ROWS]
    place = write_manifest(tmp_path / "m.csv", rows)
    source = open_source(str(place), image_column="picture", label_column="kind")
    assert in_order(read_all(source)) == sorted(ROWS)


def test_parquet_with_images_is_no_manifest(tmp_path: Path) -> None:
    """Their column has another name, which is told as ever."""
    rows = [{"img": b"bytes", "path": path, "label": label} for path, label in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    with pytest.raises(UserError, match=r"data\.image_column: .* has no column 'image'"):
        open_source(str(tmp_path / "m.parquet"))


def test_in_a_bucket(s3_prefix: str, tmp_path: Path) -> None:  # noqa: F811
    """Also a table on this machine that names objects."""
    storage = open_storage(s3_prefix)
    for path, _ in ROWS:
        storage.write_bytes(f"images/{path}", path.encode())
    whole = [{"path": f"{s3_prefix}/images/{path}", "label": label} for path, label in ROWS]
    place = write_manifest(tmp_path / "m.csv", whole)
    fails(place, "lies outside of", f"{s3_prefix}/images/a")
    here = read_all(open_source(str(place), root=f"{s3_prefix}/images"))
    assert {sample.image for sample in here} == {path.encode() for path, _ in ROWS}
    storage.write_bytes("m.csv", place.read_bytes())
    there = open_source(f"{s3_prefix}/m.csv")
    assert {(s.image, s.label) for s in read_all(there)} == {(s.image, s.label) for s in here}
    there.fingerprint()
    storage.write_bytes(f"images/{ROWS[0][0]}", b"other")
    with pytest.raises(UserError, match="changed while it was read"):
        there.check_unchanged()
