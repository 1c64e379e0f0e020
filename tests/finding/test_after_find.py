"""What comes after `find`: a training, decisions, and more images."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import by_css, saved, show_page

from cwerm import pipeline
from cwerm.errors import UserError
from cwerm.finding.find import Found, find
from cwerm.job.tree import load_job
from cwerm.terminal import console
from finding.clothes import NAMES


@pytest.mark.slow
def test_its_job_trains_and_embeds_nothing_anew(found: tuple[Found, list[str]]) -> None:
    """With a test split; without one it is refused."""
    short = ["train.model=small_cnn", "train.epochs=1", "train.batch_size=32"]
    said: list[str] = []
    with console.told_to(said.append):
        summary = pipeline.run(load_job(found[0].files["job"], short)).summary
    assert summary["num_samples"] + summary["num_test_samples"] == 240
    count = summary["num_samples"]
    assert any(line.startswith(f"{count} of {count} images were embedded before") for line in said)
    untested = load_job(found[0].files["job"], [*short, "data.test_fraction=0"])
    with pytest.raises(UserError, match=r"data\.test_fraction: 0 leaves no test images"):
        pipeline.run(untested)


@pytest.mark.slow
def test_what_is_ticked_on_the_page_counts_in_the_next_run(
    found: tuple[Found, list[str]],
    folder: Path,
    browser: Any,
    tmp_path: Path,
) -> None:
    """In `find` and in a training, neither of which embeds an image anew."""
    first, second, third, *_ = found[0].suspects
    show_page(browser, found[0].files["page"])
    for number, decision in enumerate(("confirmed", "relabelled", "removed")):
        by_css(browser, f"[data-decision={decision}]")[number].click()
    assert len(saved(browser).rows) == 3
    corrections = tmp_path / "corrections.csv"
    shutil.copy(browser.downloads / "corrections.csv", corrections)
    said: list[str] = []
    options = {"storage": str(folder.parent / "store"), "data.corrections": str(corrections)}
    with console.told_to(said.append):
        left = find(str(folder), tmp_path / "out", options=options)
    assert not {first.path, second.path, third.path} & {suspect.path for suspect in left.suspects}
    # training and test images are drawn of the same: all of them are embedded
    short = ["train.model=small_cnn", "train.epochs=1", "train.batch_size=32"]
    short += [f"data.corrections={corrections}", "name=corrected"]
    with console.told_to(said.append):
        summary = pipeline.run(load_job(found[0].files["job"], short)).summary
    assert sum(summary["corrections"].values()) == 3, "of training and of test images"
    told = [line for line in said if "were embedded before" in line]
    assert told or {"extract", "embed_test"} <= {*summary["reused"]}
    for line in told:
        done, total = re.findall(r"[\d,]+", line)[:2]
        assert done == total


def with_copies(folder: Path, to: Path) -> list[set[str]]:
    """The folder with two images copied, one within its class and one into another; both groups."""
    shutil.copytree(folder, to)
    groups = []
    for number, (name, other) in enumerate(((NAMES[1], NAMES[1]), (NAMES[2], NAMES[3]))):
        first = sorted((to / name).glob("*.webp"))[number]
        copy = to / other / f"{first.stem}-copy.webp"
        shutil.copy(first, copy)
        groups.append({f"{name}/{first.name}", f"{other}/{copy.name}"})
    return groups


@pytest.mark.slow
def test_images_that_are_the_same_are_listed(
    ray_session: None, folder: Path, tmp_path: Path
) -> None:
    """Those whose labels differ first, and nothing is embedded but what is new: nothing."""
    same, differing = with_copies(folder, tmp_path / "copies")
    said: list[str] = []
    options = {"storage": str(folder.parent / "store")}
    with console.told_to(said.append):
        result = find(str(tmp_path / "copies"), tmp_path / "out", options=options)
    rows = list(csv.DictReader(io.StringIO(result.files["duplicates"].read_text())))
    groups: dict[str, set[str]] = {}
    for row in rows:
        groups.setdefault(row["group"], set()).add(row["path"])
        assert row["label"] == row["path"].partition("/")[0]
    assert groups["1"] == differing
    assert same in groups.values()
    assert {row["labels_differ"] for row in rows if row["group"] == "1"} == {"true"}
    assert any(line.endswith("in 1 of them labels differ") for line in said)
    page = result.files["page"].read_text()
    duplicates, _, unusual = page.partition("<h2>Images unlike all others</h2>")
    assert duplicates.count("<figure title=") == len(rows)
    assert unusual.count("<figure title=") == 48
