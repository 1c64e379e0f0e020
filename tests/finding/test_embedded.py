"""`find` on embeddings that are there already: no images, no Ray."""

from __future__ import annotations

import csv
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

import cwerm
from cwerm.errors import UserError
from cwerm.finding.find import find
from cwerm.job.tree import parse_job
from cwerm.pipeline import plan
from cwerm.runs.preflight import check
from cwerm.terminal import console

WRONG = 0.2


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The digits' pixels as features, a fifth of the labels drawn from the other nine."""
    features, truth = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    steps = np.where(random.random(len(truth)) < WRONG, random.integers(1, 10, len(truth)), 0)
    folder = tmp_path_factory.mktemp("embedded")
    names = np.array([f"digit {number}" for number in range(10)])
    labels = names[(truth + steps) % 10]
    paths = [f"scans/{row:04}, a.png" for row in range(len(truth))]
    table = pa.table({"path": paths, "label": labels.tolist()})
    pa.csv.write_csv(table, folder / "labels.csv")
    vectors = features.astype(np.float32)
    np.save(folder / "vectors.npy", vectors)
    shuffled = random.permutation(len(truth))
    listed = pa.array([vectors[row].tolist() for row in shuffled], pa.list_(pa.float32()))
    stored = pa.table({"path": [paths[row] for row in shuffled], "embedding": listed})
    pq.write_table(stored, folder / "vectors.parquet")
    return {"folder": folder, "wrong": steps > 0, "features": vectors, "labels": labels}


def found(digits: dict[str, Any], to: Path, file: str, key: str = "source") -> Any:
    folder = digits["folder"]
    return find(str(folder / "labels.csv"), to, [f"features.{key}={folder / file}"])


def rows_of(to: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((to / "suspects.csv").read_text())))


def test_the_wrong_labels_are_found(digits: dict[str, Any], tmp_path: Path) -> None:
    said: list[str] = []
    with console.told_to(said.append):
        result = found(digits, tmp_path / "out", "vectors.npy")
    wrong, ids = digits["wrong"], [suspect.id for suspect in result.suspects]
    assert np.mean(wrong[ids]) > 0.9
    assert len({*ids} & {*np.flatnonzero(wrong).tolist()}) > 0.9 * wrong.sum()
    assert result.num_images == len(wrong)
    assert "features 1,797 x 64; no image is read" in said
    assert any("labels look wrong" in line for line in said)


def test_the_list_is_what_the_api_says(digits: dict[str, Any], tmp_path: Path) -> None:
    found(digits, tmp_path / "out", "vectors.npy")
    expected = cwerm.find_label_errors(digits["features"], digits["labels"])
    rows = rows_of(tmp_path / "out")
    assert {int(row["id"]) for row in rows} == {*np.flatnonzero(expected.is_issue).tolist()}
    for row in rows:
        image = int(row["id"])
        assert float(row["quality"]) == pytest.approx(expected.quality[image], abs=1e-6)
        assert row["suggested"] == expected.suggested_label[image]
        assert row["label"] == digits["labels"][image]
        nearest = int(row["nearest_id"])
        assert digits["labels"][nearest] == row["suggested"]
        assert not expected.is_issue[nearest]


def test_rows_in_another_order_are_known_by_their_paths(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    found(digits, tmp_path / "a", "vectors.npy")
    found(digits, tmp_path / "b", "vectors.parquet")
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


def test_probabilities_alone(digits: dict[str, Any], tmp_path: Path) -> None:
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    model, labels = KNeighborsClassifier(20), digits["labels"]
    chances = cross_val_predict(model, digits["features"], labels, method="predict_proba")
    np.save(digits["folder"] / "chances.npy", chances)
    result = found(digits, tmp_path / "out", "chances.npy", "probabilities")
    ids = [suspect.id for suspect in result.suspects]
    assert np.mean(digits["wrong"][ids]) > 0.8
    assert {suspect.nearest_id for suspect in result.suspects} == {-1}


def test_a_page_without_pictures(digits: dict[str, Any], tmp_path: Path) -> None:
    """What is left of an earlier search with pictures goes."""
    to = tmp_path / "out"
    to.mkdir()
    (to / "suspects.png").write_bytes(b"of before")
    result = found(digits, to, "vectors.npy")
    assert not (to / "suspects.png").exists()
    assert result.suspects[0].path in (to / "suspects.html").read_text()
    assert sorted(path.name for path in to.iterdir()) == ["suspects.csv", "suspects.html"]


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("one row less", r"holds 1796 x 64 numbers, and data\.source has 1797 rows"),
        ("one axis", r"holds 1797 numbers, and data\.source has 1797 rows"),
        ("a pickle", r"features\.source: .*Object arrays cannot be loaded"),
        ("a text", r"is neither \.npy nor Parquet"),
        ("not there", r"features\.source: .*can't be read \(No such file"),
        ("another path", r"has no row for 'scans/0000, a\.png'"),
        ("no vectors", r"has no column embedding \(there are: path, x\)"),
        ("ragged", r"has rows of 1 to 2 numbers in column embedding"),
        ("nan", r"features\.source: .*row 5"),
        ("a folder", r"data\.source: .*is no table of paths and labels"),
    ],
)
def test_a_mistake_is_one_line(
    digits: dict[str, Any], tmp_path: Path, case: str, told: str
) -> None:
    place, source = tmp_path / "x.npy", digits["folder"] / "labels.csv"
    vectors = digits["features"].copy()
    paths = [f"scans/{row:04}, a.png" for row in range(len(vectors))]
    table: dict[str, Any] = {"path": paths, "embedding": vectors.tolist()}
    if case == "one row less":
        np.save(place, vectors[1:])
    if case == "one axis":
        np.save(place, vectors[:, 0])
    if case == "a pickle":
        np.save(place, np.array([{"a": 1}], object), allow_pickle=True)
    if case == "a text":
        place.write_bytes(pickle.dumps(vectors))
    if case == "nan":
        vectors[5, 3] = np.nan
        np.save(place, vectors)
    if case == "a folder":
        source = tmp_path
        np.save(place, vectors)
    if case == "another path":
        table["path"] = ["other.png", *paths[1:]]
    if case == "no vectors":
        table = {"path": paths, "x": paths}
    if case == "ragged":
        table["embedding"] = [[1.0], [1.0, 2.0]] + [[1.0]] * (len(paths) - 2)
    if case in ("another path", "no vectors", "ragged"):
        place = tmp_path / "x.parquet"
        pq.write_table(pa.table(table), place)
    with pytest.raises(UserError, match=told) as refused:
        find(str(source), tmp_path / "out", [f"features.source={place}"])
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out" / "suspects.csv").exists()


@pytest.mark.parametrize(
    "override", ["data.corrections=c.csv", "data.limit=100", "data.noise=flip", "data.trusted=x"]
)
def test_what_would_have_no_effect_is_refused(
    digits: dict[str, Any], tmp_path: Path, override: str
) -> None:
    folder, key = digits["folder"], override.partition("=")[0]
    given = [f"features.source={folder / 'vectors.npy'}", override]
    with pytest.raises(UserError, match=rf"{key}: without images it has no effect"):
        find(str(folder / "labels.csv"), tmp_path / "out", given)


def test_a_training_takes_no_embeddings(tmp_path: Path) -> None:
    tree = {"data": {"source": "sample"}, "features": {"source": str(tmp_path / "x.npy")}}
    with pytest.raises(UserError, match=r"features\.source: `cwerm find` takes it"):
        check(plan(parse_job({**tree, "storage": str(tmp_path / "store")})))
