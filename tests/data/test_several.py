"""Several sources as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading_sources import read_all

from cwerm.data import open_source
from cwerm.data.several import Several, distinct_names
from cwerm.errors import UserError
from cwerm.job.tree import parse_job
from cwerm.stages.ingest.several import same_kind, told_of_sources
from cwerm.submission.package import shipped_job


def folder(root: Path, *names: str) -> Path:
    """A folder of class folders, whose images are their own paths."""
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_text(f"{name}/1")
    return root


def parquet(place: Path, **columns: list[object]) -> Path:
    first = next(iter(columns.values()))
    images = {"image": [f"row {i}".encode() for i in range(len(first))]}
    pq.write_table(pa.table(images | columns), place)
    return place


def opened(*places: Path) -> Several:
    source = open_source([str(place) for place in places])
    assert isinstance(source, Several)
    return source


@pytest.mark.parametrize(
    ("addresses", "names"),
    [
        (["a/x", "b/y"], ["x", "y"]),
        (["a/x", "b/x/", "c"], ["a/x", "b/x", "c"]),
        (["/d/x", "s3://d/x"], ["/d/x", "s3/d/x"]),
        (["hf:owner/name", "mnist", "t.csv"], ["name", "mnist", "t.csv"]),
        (["hf:one/name", "hf:two/name"], ["one/name", "two/name"]),
    ],
)
def test_names_are_as_short_as_they_can_be(addresses: list[str], names: list[str]) -> None:
    assert distinct_names(addresses) == names


@pytest.mark.parametrize("second", ["a", "./a", "a/"])
def test_the_same_address_twice(second: str) -> None:
    with pytest.raises(UserError, match=r"^data.source: '.*' is named twice; leave one out"):
        open_source(["a", second])


def test_samples_of_all_with_paths_that_tell_the_source(tmp_path: Path) -> None:
    names = [
        b'{"info": {"features": {"label": {"names": ["rose", "oak"], "_type": "ClassLabel"}}}}'
    ]
    table = pa.table({"image": [b"a", b"b"], "label": [1, 0], "who": ["x", "y"]})
    pq.write_table(
        table.replace_schema_metadata({b"huggingface": names[0]}), tmp_path / "p.parquet"
    )
    source = opened(folder(tmp_path / "flowers", "oak", "tulip"), tmp_path / "p.parquet")
    samples = sorted(read_all(source), key=lambda sample: sample.path)
    assert [(sample.path, sample.label) for sample in samples] == [
        ("flowers/oak/1.png", "oak"),
        ("flowers/tulip/1.png", "tulip"),
        ("p.parquet/p.parquet[0]", "oak"),
        ("p.parquet/p.parquet[1]", "rose"),
    ]
    assert source.class_names() == ["oak", "tulip", "rose"]
    assert [dict(sample.extra) for sample in samples[1:3]] == [{}, {"who": "x"}]
    assert source.extra_columns() == {"who": pa.string()}


def test_a_split_is_that_of_all_that_have_it(tmp_path: Path) -> None:
    source = opened(
        folder(tmp_path / "a", "train/cat", "train/dog", "test/cat", "test/dog"),
        folder(tmp_path / "b", "cat", "dog"),
    )
    assert len(read_all(source)) == 4
    assert sorted(sample.path for sample in read_all(source, "test")) == [
        "a/test/cat/1.png",
        "a/test/dog/1.png",
    ]
    assert source.origin("test").endswith("(none in b)")


def test_the_fingerprint_is_that_of_all(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", "cat", "dog"), folder(tmp_path / "b", "cat", "dog")
    known = opened(first, second).fingerprint()
    assert opened(first, second).fingerprint() == known
    assert opened(second, first).fingerprint() != known
    (second / "cat" / "1.png").write_text("other")
    assert opened(first, second).fingerprint() != known


def test_what_goes_wrong_names_the_source(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", "cat", "dog")
    with pytest.raises(UserError, match=r"^data.source: '.*/none' does not exist"):
        opened(first, tmp_path / "none")
    source = opened(first, folder(tmp_path / "b", "cat", "dog"))
    source.fingerprint()
    (tmp_path / "b" / "cat" / "1.png").write_text("other")
    with pytest.raises(UserError, match=r"^data.source: '.*/b/cat/1.png' changed"):
        source.check_unchanged()


def test_columns_of_other_kinds_stay_behind(tmp_path: Path) -> None:
    first = parquet(tmp_path / "a.parquet", label=["x", "y"], size=[1, 2], who=["p", "q"])
    second = parquet(tmp_path / "b.parquet", label=["x", "y"], size=[0.5, 1.5], who=[1, 2])
    source = opened(first, second)
    assert source.extra_columns() == {"size": pa.float64()}
    assert any("who" in line for line in source.remarks())


def test_integers_match_folders_of_their_numbers(tmp_path: Path) -> None:
    source = opened(folder(tmp_path / "a", "3"), parquet(tmp_path / "b.parquet", label=[3, 5]))
    assert same_kind(source, [(0, "3"), (1, 3), (1, 5)])
    assert not same_kind(source, [(0, "3"), (1, "5")])
    with pytest.raises(UserError, match=r"labels of 'b.parquet' are integers.* of 'a' are names"):
        same_kind(source, [(0, "3"), (0, "cat"), (1, 5)])


def test_classes_of_one_source_and_names_that_are_alike_are_told(tmp_path: Path) -> None:
    source = opened(folder(tmp_path / "a", "Rose", "oak"), folder(tmp_path / "b", "rose", "oak"))
    names = ["Rose", "oak", "rose"]
    counts = np.array([[1, 1, 0], [0, 1, 1]])
    assert told_of_sources(source, counts, names) == [
        "2 sources: a 2, b 2",
        "classes that a alone has: Rose",
        "classes that b alone has: rose",
        "'Rose' (a) and 'rose' (b) are counted as classes of their own",
    ]
    assert told_of_sources(source.sources[0], counts, names) == []


@pytest.mark.parametrize("wrong", [[], [""], [3], 3])
def test_what_a_job_may_not_name(wrong: object) -> None:
    with pytest.raises(UserError, match=r"^data\.source: "):
        parse_job({"data": {"source": wrong}})


def test_a_job_with_several_goes_to_a_cluster(tmp_path: Path, monkeypatch: object) -> None:
    folder(tmp_path / "a", "cat")
    tree = {"data": {"source": [str(tmp_path / "a"), "s3://bucket/b"]}, "storage": "s3://bucket/c"}
    job = parse_job(tree)
    assert shipped_job(job, None).data.source == tree["data"]["source"]
    assert job.places["data.source"] == str(tmp_path / "a")
    assert job.places["data.source[1]"] == "s3://bucket/b"
    assert "- s3://bucket/b" in job.to_yaml()
