"""A person's decisions: they change labels and what is trained on, and embed nothing anew."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changes import change

from cwerm.errors import UserError
from cwerm.job.tree import parse_job
from cwerm.pipeline import plan
from cwerm.runs.preflight import check_images
from cwerm.stages import common
from cwerm.stages.train import loop_inputs
from cwerm.terminal import console
from stages.conftest import Chain, Fork, Vary, run_stages

pytestmark = pytest.mark.usefixtures("ray_session")

CONFIRMED, RELABELLED, REMOVED = 3, 14, 200  # ids of training images
IN_TEST = 5


def paths_of(chain: Chain, table: str = "images") -> list[str]:
    return chain.table("ingest", table).column("path").to_pylist()


def write(place: Path, *rows: tuple[str, str, str]) -> str:
    with place.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "decision", "new_label"), *rows])
    return str(place)


def usual(chain: Chain, place: Path) -> str:
    """A decision of each kind; the relabelled image becomes of the next class."""
    paths, names = paths_of(chain), chain.made["ingest"].info["class_names"]
    new = names[(int(chain.labels[RELABELLED]) + 1) % len(names)]
    return write(
        place,
        (paths[CONFIRMED], "confirmed", ""),
        (paths[RELABELLED], "relabelled", new),
        (paths[REMOVED], "removed", ""),
    )


def corrected(chain: Chain, file: str, last: str, **changes: Any) -> Chain:
    tree = chain.job.model_dump()
    change(tree, {"data__corrections": file, **changes})
    return run_stages(parse_job(tree), last)


@pytest.fixture
def judged(vary: Vary) -> Chain:
    """The noisy images, weighed by cwerm's default."""
    return vary(
        "broadcast",
        reweight={"method": "posterior"},
        broadcast={"method": "function"},
        coreset={"method": "auto", "meta": "none"},
    )


def test_weights_follow_decisions(judged: Chain, tmp_path: Path) -> None:
    file = usual(judged, tmp_path / "corrections.csv")
    mine = corrected(judged, file, "broadcast")
    for stage in ("ingest", "extract"):
        assert mine.made[stage].key == judged.made[stage].key, "nothing is read or embedded anew"
    expected = judged.labels.copy()
    expected[RELABELLED] = (expected[RELABELLED] + 1) % 10
    assert np.array_equal(mine.labels, expected)
    weights = mine.table("broadcast", "weights").sort_by("id")
    weight, quality, suggested, label = (
        common.column(weights, name) for name in ("weight", "quality", "suggested_label", "label")
    )
    assert np.array_equal(label, expected)
    known = [CONFIRMED, RELABELLED]
    assert np.array_equal(quality[known], [1, 1])
    assert np.array_equal(suggested[known], label[known])
    assert (quality < 1).sum() >= 390, "the others are judged"
    for image in known:
        assert weight[image] == pytest.approx(weight[label == label[image]].max(), rel=1e-2)
    assert weight[REMOVED] == 0
    assert np.delete(weight, REMOVED).mean() == pytest.approx(1, abs=1e-6)
    others = np.setdiff1d(np.arange(400), [*known, REMOVED])
    before = judged.table("broadcast", "weights").sort_by("id")
    was = common.column(before, "quality")
    np.testing.assert_array_equal(
        quality[others], was[others], "nothing else is found of the others"
    )
    assert mine.made["label"].info["corrections"] == {
        "confirmed": 1,
        "relabelled": 1,
        "removed": 1,
        "of_test": 0,
        "removed_test": 0,
    }


@pytest.mark.parametrize("method", ["erm", "c-random-erm", "cw-erm"])
def test_no_method_trains_on_what_was_removed(fork: Fork, tmp_path: Path, method: str) -> None:
    mine = fork("train" if method == "cw-erm" else "extract")
    tree = mine.job.model_dump()
    everyone = paths_of(mine)
    removed = list(range(0, 400, 3))
    rows = [(everyone[i], "removed", "") for i in removed]
    change(tree, {"data__corrections": write(tmp_path / "c.csv", *rows), "method": method})
    tree["coreset"] |= {"method": "random", "ratio": 0.3}
    steps = plan(parse_job(tree))
    for name in steps.names[:-1]:
        steps.execute(name)
    chain = Chain(steps)
    ids, _ = chain.training_set()
    assert len(ids)
    assert not {*ids.tolist()} & {*removed}
    if "select" in steps.made:
        meta = chain.table("select", "meta").column("id").to_pylist()
        assert len(meta) == 20
        assert not {*meta} & {*removed}
    epoch = loop_inputs(steps["train"].settings, steps.inputs("train"), steps.store)
    held_out = 20
    assert epoch["samples_per_epoch"] == 400 - len(removed) - held_out


def test_decisions_on_test_images_count_there(fork: Fork, tmp_path: Path) -> None:
    """Where the test images lie in the same source; those of another one have paths of their own."""
    mine = fork("extract")
    path = paths_of(mine, "test_images")[IN_TEST]
    given = common.column(mine.table("ingest", "given_test_labels"), "label")
    name = mine.made["ingest"].info["class_names"][(int(given[IN_TEST]) + 1) % 10]
    file = write(tmp_path / "c.csv", (path, "relabelled", name))
    found = corrected(mine, file, "ingest").run("label")
    table = mine.store.read(found, "test_labels")
    assert np.flatnonzero(common.column(table, "label") != given).tolist() == [IN_TEST]
    assert found.info["corrections"]["of_test"] == 1
    removed = corrected(mine, write(tmp_path / "d.csv", (path, "removed", "")), "ingest").run(
        "label"
    )
    table = mine.store.read(removed, "test_labels")
    assert np.flatnonzero(common.column(table, "removed")).tolist() == [IN_TEST]


@pytest.mark.slow
def test_the_accuracy_is_that_of_the_test_images_that_are_left(
    trained: Chain, tmp_path: Path
) -> None:
    """One training, evaluated by the loop, against its logits on the test images that were kept."""
    folder = tmp_path / "store"
    shutil.copytree(trained.job.storage, folder)
    rows = [(path, "removed", "") for path in paths_of(trained, "test_images")[::2]]
    file = write(tmp_path / "c.csv", *rows)
    mine = corrected(trained, file, "train", storage=str(folder), resources__workers=1)
    found = mine.made["train"].info
    assert mine.made["label"].info["corrections"]["removed_test"] == len(rows)
    total = len(paths_of(trained, "test_images"))
    kept = total - len(rows)
    right = found["test_accuracy"] * kept
    assert right == pytest.approx(round(right), abs=1e-4), "a share of the images that are left"


def test_what_was_done_is_told(fork: Fork, tmp_path: Path) -> None:
    mine = fork("extract")
    tree = mine.job.model_dump()
    change(tree, {"data__corrections": usual(mine, tmp_path / "c.csv")})
    steps = plan(parse_job(tree))
    steps.execute("ingest")
    said: list[str] = []
    with console.told_to(said.append):
        check_images(steps)
    assert "corrections: 1 confirmed, 1 relabelled, 1 removed" in said


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("nowhere.png", "removed", ""), "no image 'nowhere.png' in data.source"),
        (("PATH", "relabelled", "nothing"), "which is no class"),
        (("PATH", "gone", ""), "line 2: unknown decision 'gone'"),
    ],
)
def test_a_mistake_is_one_line(
    fork: Fork, tmp_path: Path, row: tuple[str, str, str], told: str
) -> None:
    mine = fork("extract")
    path = paths_of(mine)[0] if row[0] == "PATH" else row[0]
    file = write(tmp_path / "c.csv", (path, *row[1:]))
    with pytest.raises(UserError, match=rf"data\.corrections.*{told}") as refused:
        corrected(mine, file, "ingest").run("label")
    assert "\n" not in str(refused.value)


def test_of_images_that_are_left_out_nothing_is_asked(fork: Fork, tmp_path: Path) -> None:
    file = write(tmp_path / "c.csv", ("nowhere.png", "removed", ""))
    mine = corrected(fork("ingest"), file, "ingest", data__limit=100)
    assert mine.run("label").info["corrections"]["removed"] == 0


def test_a_class_is_not_emptied(fork: Fork, tmp_path: Path) -> None:
    mine = fork("extract")
    rows = [
        (path, "removed", "")
        for path, label in zip(paths_of(mine), mine.labels.tolist(), strict=True)
        if label == 4
    ]
    file = write(tmp_path / "c.csv", *rows)
    with pytest.raises(UserError, match=r"data\.corrections: they leave class '.*' without"):
        corrected(mine, file, "ingest").run("label")


def test_a_file_that_is_not_there(fork: Fork, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.corrections: .*none\.csv.*check the path"):
        corrected(fork("extract"), str(tmp_path / "none.csv"), "ingest").run("label")
