"""What programs ask of commands: JSON, silence, the version, completion, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from commands import MODULE, Answer, Finished

import cwerm as package
from cwerm import load_weights

Cwerm = Callable[..., Answer]


def test_the_version(cwerm: Cwerm) -> None:
    answer = cwerm("--version")
    answer.succeeded()
    assert answer.out == f"cwerm {version('cwerm')}\n"
    assert package.__version__ == version("cwerm")


def test_each_command_tells_what_it_takes(cwerm: Cwerm) -> None:
    text = cwerm("--help").out
    for word in ("--quiet", "--json", "Exit codes", "--install-completion"):
        assert word in text


def test_json_stands_alone_on_standard_output(
    cwerm: Cwerm, finished: Finished, tmp_path: Path
) -> None:
    target = tmp_path / "low.png"
    answer = cwerm("--json", "inspect", finished.folder, "--lowest", "3", "--to", target)
    assert answer.code == 0
    found = json.loads(answer.out)
    weights = load_weights(str(finished.folder))
    lowest = sorted(weights.to_pylist(), key=lambda row: (row["weight"], row["id"]))[:3]
    assert [row["id"] for row in found["lowest"]] == [row["id"] for row in lowest]
    assert all(row["path"] for row in found["lowest"])
    assert found["file"] == str(target)
    assert "contact sheet in" in answer.err


def test_a_run_that_finds_everything_made_answers_its_summary(
    cwerm: Cwerm, finished: Finished
) -> None:
    answer = cwerm("run", finished.job, "--overwrite", "--json")
    assert answer.code == 0, answer.err
    found, written = json.loads(answer.out), (finished.folder / "summary.json").read_text()
    assert found.pop("run") == str(finished.folder)
    assert found == json.loads(written)


def test_several_jobs_stand_side_by_side(cwerm: Cwerm, finished: Finished, tmp_path: Path) -> None:
    """They share what they can: plain training reads the images that are there."""
    tree = yaml.safe_load(finished.job.read_text())
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump({**tree, "name": "plain", "method": "erm"}))
    answer = cwerm("run", finished.job, tmp_path / "plain.yaml", "train.epochs=1", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert [run["method"] for run in found["runs"]] == ["cw-erm", "erm"]
    assert "ingest" in found["runs"][1]["reused"]
    first, plain = found["points"]
    assert plain["is_baseline"]
    difference = first["mean"] - plain["mean"]
    assert first["difference"]["mean"] == pytest.approx(difference)
    assert "All points of comparison" in answer.err


def test_a_mistake_in_the_second_job_shows_before_the_first_runs(
    cwerm: Cwerm, finished: Finished, tmp_path: Path
) -> None:
    (tmp_path / "b.yaml").write_text("data: {source: sample, nothing: 1}")
    before = finished.files()
    cwerm("run", finished.job, tmp_path / "b.yaml").refused("data.nothing: unknown key")
    cwerm("run", finished.job, tmp_path / "none.yaml").refused("none.yaml: no such job file")
    assert finished.files() == before


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["gc", "STORE"], {"garbage", "deleted"}),
        (["repair", "STORE"], {"damage", "deleted"}),
        (["export", "RUN", "--to", "TO/w.csv"], {"file", "weights"}),
        (["report", "RUN", "--to", "TO"], {"files"}),
        (["stage", "ingest", "JOB"], {"artifact"}),
        (["predict", "RUN", "IMAGES", "--to", "TO/p.csv"],
         {"file", "num_images", "counts", "num_abstained", "unreadable"}),
    ],
)  # fmt: skip
def test_what_each_command_answers(
    cwerm: Cwerm, finished: Finished, tmp_path: Path, arguments: list[str], keys: set[str]
) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.new("RGB", (28, 28), "red").save(tmp_path / "images" / "a.png")
    places = {
        "STORE": finished.store, "RUN": finished.folder, "JOB": finished.job,
        "IMAGES": tmp_path / "images", "TO": tmp_path,
    }  # fmt: skip
    for name, place in places.items():
        arguments = [
            text.replace(name, str(place), 1) if text.startswith(name) else text
            for text in arguments
        ]
    answer = cwerm(*arguments, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out).keys() == keys
    assert answer.out.count("\n") == 1
    answer = cwerm(*arguments, "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    cwerm(*arguments).succeeded()


def test_mistakes_are_told_as_ever(cwerm: Cwerm, tmp_path: Path) -> None:
    for option in ("--json", "--quiet"):
        answer = cwerm("inspect", tmp_path, option)
        answer.refused("no weights.parquet")
        assert answer.out == ""


def test_what_follows_two_dashes_is_no_option(cwerm: Cwerm) -> None:
    cwerm("inspect", "--", "--json").refused("--json: no weights.parquet")


@pytest.mark.parametrize(
    ("words", "expected"), [("cwerm pre", "predict"), ("cwerm find --cor", "--corrections")]
)
def test_a_shell_completes(words: str, expected: str) -> None:
    asked = {"_CWERM_COMPLETE": "complete_bash", "COMP_WORDS": words}
    place = {"COMP_CWORD": str(len(words.split()) - 1)}
    found = subprocess.run(
        MODULE, env={**os.environ, **asked, **place}, capture_output=True, text=True, check=False
    )
    assert expected in found.stdout.split(), found.stderr


def test_nothing_heavy_is_loaded_for_the_version() -> None:
    code = "import sys, cwerm; cwerm.__version__; assert not {'torch', 'ray'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
