"""`find`: from a folder of images to a list of suspects, a sheet and a page, with nothing else given."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cwerm.errors import UserError
from cwerm.finding.find import Found, find
from cwerm.job.tree import load_job
from cwerm.stages import common
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.storage import open_storage
from cwerm.suspects.duplicates import groups_of
from cwerm.suspects.suspects import nearest_of
from cwerm.terminal import console
from finding.clothes import NAMES, WRONG, is_wrong


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_those_of_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers, labels = random.integers(-1, 12, 30), random.integers(0, 3, 30)
    expected = [np.flatnonzero(numbers == number) for number in range(12)]
    expected = [rows for rows in expected if len(rows) > 1]
    found = groups_of(numbers, labels)
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))
    alike = [len({*labels[rows].tolist()}) == 1 for rows in found]
    assert alike == sorted(alike), "those that differ come first"


def test_the_wrong_labels_come_first(found: tuple[Found, list[str]]) -> None:
    result, said = found
    assert result.num_images == 240, "all are judged: none is drawn as a test split"
    first = [suspect.path for suspect in result.suspects[:WRONG]]
    assert np.mean([is_wrong(path) for path in first]) > 0.8
    assert [s.rank for s in result.suspects] == [*range(1, len(result.suspects) + 1)]
    qualities = [suspect.quality for suspect in result.suspects]
    assert qualities == sorted(qualities)
    assert all(suspect.label != suspect.suggested for suspect in result.suspects)
    hits = [s for s in result.suspects if is_wrong(s.path)]
    assert np.mean([NAMES[int(s.path.rpartition("/")[2][0])] == s.suggested for s in hits]) > 0.8
    assert any(
        line.startswith("features: tf_efficientnet_lite0, weights package:") for line in said
    )
    assert any("labels look wrong" in line for line in said)


def test_the_list_says_what_was_found(found: tuple[Found, list[str]]) -> None:
    result, _ = found
    rows = list(csv.DictReader(io.StringIO(result.files["list"].read_text())))
    assert [row["path"] for row in rows] == [suspect.path for suspect in result.suspects]
    assert [float(row["quality"]) for row in rows] == pytest.approx(
        [suspect.quality for suspect in result.suspects], abs=1e-6
    )
    with Image.open(result.files["sheet"]) as sheet:
        assert sheet.width > 500


def test_beside_each_stands_the_nearest_of_the_suggested_class(
    found: tuple[Found, list[str]],
) -> None:
    """Against all distances, among the images that are no suspects."""
    result, _ = found
    job = load_job(result.files["job"])
    store = ArtifactStore(open_storage(job.storage))
    (path,) = Path(job.storage, "artifacts/extract").iterdir()
    features = store.find("extract", path.name)
    assert features
    vectors = common.column(store.read(features, "features"), "feature").astype(np.float64)
    (path,) = Path(job.storage, "artifacts/ingest").iterdir()
    images = store.find("ingest", path.name)
    assert images
    paths = store.read(images, "images", ["path"])["path"].to_pylist()
    suspects = {suspect.id for suspect in result.suspects}
    for suspect in result.suspects[:10]:
        others = [
            i for i, p in enumerate(paths) if p.startswith(suspect.suggested) and i not in suspects
        ]
        distances = ((vectors[others] - vectors[suspect.id]) ** 2).sum(axis=1)
        assert paths[others[int(distances.argmin())]] == suspect.nearest_path
        assert paths[suspect.nearest_id] == suspect.nearest_path


def test_the_page_holds_all_and_trusts_no_name(found: tuple[Found, list[str]]) -> None:
    result, _ = found
    page = result.files["page"].read_text()
    assert "<b>shirt" not in page
    assert html.escape(NAMES[0]) in page
    assert "broken.png" in page
    assert "http" not in re.sub(r"http-equiv", "", page), "it works offline"
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])
    assert [row[0] for row in data["rows"]] == [suspect.path for suspect in result.suspects]
    shown = {str(s.id) for s in result.suspects} | {str(s.nearest_id) for s in result.suspects}
    with result.files["unusual"].open() as file:
        unusual = [row["id"] for row in csv.DictReader(file)]
    assert len(unusual) == 48
    assert all(f'<img data-id="{number}"' in page for number in unusual)
    assert set(data["pictures"]) == shown | {*unusual}


def test_where_all_labels_are_right_nothing_is_listed(
    ray_session: None, folder: Path, tmp_path: Path
) -> None:
    for file in folder.glob("*/*-*.webp"):
        place = tmp_path / "right" / NAMES[int(file.name[0])]
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).write_bytes(file.read_bytes())
    # what was found before is not left to be taken for this
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "suspects.png").write_bytes(b"of before")
    said: list[str] = []
    options = {"storage": str(folder.parent / "store")}
    with console.told_to(said.append):
        result = find(str(tmp_path / "right"), tmp_path / "out", options=options)
    assert result.suspects == []
    assert result.told == ["no wrong labels found among 240: all weights are 1"]
    assert result.told[0] in said
    assert len(result.files["list"].read_text().splitlines()) == 1
    assert not (tmp_path / "out" / "suspects.png").exists()
    assert any("240 of 240 images were embedded before" in line for line in said)


@pytest.mark.slow
def test_where_too_few_tell_that_is_said(ray_session: None, folder: Path, tmp_path: Path) -> None:
    """On the terminal, on the page and in the record."""
    for name in NAMES[1:4]:
        files = [
            f for f in sorted((folder / name).glob("*-*.webp")) if not is_wrong(f"{name}/{f.name}")
        ]
        place = tmp_path / "few" / name
        place.mkdir(parents=True)
        for file in files[:20]:
            (place / file.name).write_bytes(file.read_bytes())
    said: list[str] = []
    options = {"storage": str(folder.parent / "store")}
    with console.told_to(said.append):
        result = find(str(tmp_path / "few"), tmp_path / "out", options=options)
    assert result.suspects == []
    told = result.record()["told"]
    assert re.match(
        r"no wrong labels found, but \d+ are too few to tell: up to \d+% may be", told[0]
    )
    page = html.unescape(result.files["page"].read_text())
    for line in told:
        assert line in said
        assert line in page


@pytest.mark.parametrize(
    "override",
    ["method=erm", "control=untrained", "reweight.method=uniform", "broadcast.method=nearest"],
)
def test_what_judges_no_labels_is_refused(override: str, tmp_path: Path) -> None:
    key, _, value = override.partition("=")
    told = rf"{re.escape(key)}.*: with .*{value}.* no label is judged"
    with pytest.raises(UserError, match=told):
        find(str(tmp_path), tmp_path / "out", [override])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["no folder", "a file", "a key"])
def test_a_mistake_is_one_line(case: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"source": str(tmp_path / "none"), "to": tmp_path / "out"}
    told = "data.source"
    if case == "a file":
        (tmp_path / "out").write_text("of somebody")
        told = "--to: "
    if case == "a key":
        given["overrides"], told = ["features.bakbone=resnet18"], "features.bakbone"
    with pytest.raises(UserError, match=told) as refused:
        find(**given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("seed", range(5))
def test_nearest_of_a_class_is_that_of_all_distances(seed: int) -> None:
    random = np.random.default_rng(seed)
    queries, vectors = random.normal(size=(20, 6)), random.normal(size=(50, 6))
    wanted, labels = random.integers(0, 5, 20), random.integers(0, 4, 50)
    rows = nearest_of(queries.astype(np.float32), wanted, vectors.astype(np.float32), labels)
    distances = ((queries[:, None] - vectors) ** 2).sum(axis=2)
    distances[wanted[:, None] != labels] = np.inf
    expected = np.where(wanted == 4, -1, distances.argmin(axis=1))
    np.testing.assert_array_equal(rows, expected)
