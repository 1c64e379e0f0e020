"""From a job to its stages and keys: what each method needs, and which keys follow which setting."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cwerm.data.sample import SampleSource
from cwerm.job.tree import Job, load_job
from cwerm.pipeline import PIPELINE, plan
from cwerm.stages import plan as plans
from stages.conftest import Fork

MakeJob = Callable[..., Job]
ROOT = Path(__file__).parents[2] / "cwerm"
JOBS = Path(__file__).parents[2] / "jobs"
QUICKSTART = ("quickstart", "quickstart-paper", "quickstart-erm")
ALL = ("ingest", "extract", "select", "reweight", "broadcast", "train")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ALL),
        ({"method": "erm"}, ("ingest", "train")),
        ({"method": "c-random-erm"}, ("ingest", "select", "train")),
        ({"method": "c-moderate-erm"}, ("ingest", "extract", "select", "train")),
        ({"method": "w-erm"}, ALL),
        (
            {"method": "w-erm", "reweight__input": "images", "broadcast__method": "auto"},
            ("ingest", "select", "reweight", "broadcast", "train"),
        ),
        ({"coreset__method": "random", "reweight__input": "images"}, ALL),
    ],
)
def test_a_job_runs_what_it_needs(
    make_job: MakeJob, changes: dict[str, Any], names: tuple[str, ...]
) -> None:
    assert plan(make_job(**changes)).names == names


# by the change of a job: the first stage whose key it changes; all that need it follow
FIRST = {
    "data__rows_per_part": "ingest",
    "data__limit": "ingest",
    "data__test_fraction": "ingest",
    "data__noise": "label",
    "features__image_size": "extract",
    "features__dtype": "extract",
    "features__weights": "extract",
    "coreset__ratio": "select",
    "coreset__scope": "select",
    "coreset__meta_per_class": "select",
    "seed": "select",
    "reweight__lr": "reweight",
    "reweight__epochs": "reweight",
    "broadcast__neighbors": "broadcast",
    "broadcast__balance": "broadcast",
    "train__lr": "train",
    "train__model": "train",
    "control": "train",
}
VALUES = {
    "data__rows_per_part": 50, "data__limit": 200, "data__test_fraction": 0.2, "data__noise": "flip",
    "features__image_size": 64, "features__dtype": "float32", "features__weights": "random",
    "coreset__ratio": 0.2, "coreset__scope": "global", "coreset__meta_per_class": 3, "seed": 1,
    "reweight__lr": 0.5, "reweight__epochs": 5, "broadcast__neighbors": 2,
    "broadcast__balance": "class", "train__lr": 0.5, "train__model": "small_cnn",
    "control": "permuted",
}  # fmt: skip
NONE = {
    "name": "other", "data__max_rejects": 3, "features__batch_size": 7,
    "broadcast__max_index_bytes": 1000, "train__keep_checkpoints": 5, "resources__workers": 1,
    "train__focal_gamma": 1.0, "reweight__model": "resnet56",
    "data__noise_rate": 0.1,
}  # fmt: skip


def keys(job: Job) -> dict[str, str]:
    steps = plan(job)
    return {stage.name: steps[stage.name].key for stage in PIPELINE}


@pytest.mark.parametrize("change", FIRST)
def test_a_setting_changes_the_keys_from_its_stage_on(make_job: MakeJob, change: str) -> None:
    before, after = keys(make_job()), keys(make_job(**{change: VALUES[change]}))
    changed = {name for name in before if before[name] != after[name]}
    expected = {FIRST[change]}
    if "extract" in expected:
        expected |= {"embed_val", "embed_test"}  # which see the same settings
    for stage in PIPELINE:
        if expected & set(stage.needs(make_job())):
            expected.add(stage.name)
    if change in ("seed", "coreset__meta_per_class"):
        expected.add("train")  # draws from it, too
    assert changed == expected


@pytest.mark.parametrize("change", NONE)
def test_how_a_run_is_done_changes_no_key(make_job: MakeJob, change: str) -> None:
    before = keys(make_job())
    assert keys(make_job(**{change: NONE[change]})) == before


def test_the_jobs_of_the_quickstart_share_what_they_can(tmp_path: Path) -> None:
    jobs = {name: load_job(JOBS / f"{name}.yaml") for name in QUICKSTART}
    assert [job.name for job in jobs.values()] == list(jobs), "a folder of its own for each"
    places = {"storage": str(tmp_path)}
    plans = [plan(job.model_copy(update=places)) for job in jobs.values()]
    for stage, count in {"ingest": 3, "label": 3, "extract": 2}.items():
        keys = [steps[stage].key for steps in plans[:count]]
        assert len({*keys}) == 1, stage
    trainings = [job.train.model_dump() for job in jobs.values()]
    assert trainings[0] == trainings[1] == trainings[2], "what is compared differs in nothing else"


def test_the_source_is_asked_once(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    whole = SampleSource.fingerprint
    monkeypatch.setattr(SampleSource, "fingerprint", lambda self: (asked.append(1), whole(self))[1])
    steps = plan(make_job(data__source="sample"))
    for stage in PIPELINE:
        _ = steps[stage.name].key
    assert len(asked) == 1


def test_what_was_not_there_is_made_once(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    """All stages are looked up at once; one that several others read is made, and not asked for again."""
    asked: list[str] = []
    whole = plans.claimed
    monkeypatch.setattr(plans, "claimed", lambda *place: (asked.append(place[1]), whole(*place))[1])
    mine = fork("extract", data__noise="symmetric", data__noise_rate=0.2)
    del mine.made["label"]
    mine.plan.look_up()
    assert {mine.run("label").key for _ in range(3)} == {mine.plan["label"].key}
    assert asked == ["label"]


def test_an_earlier_version_is_another_key(make_job: MakeJob) -> None:
    node = plan(make_job())["select"]
    newer = type(node.stage)(**{**vars(node.stage), "version": node.stage.version + 1})
    assert newer.key(node.settings, ["x"]) != node.stage.key(node.settings, ["x"])


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        (r"\bartifact_key\(", {"store/artifacts.py", "stages/stage.py", "stages/extract/known.py"}),
        (
            r"\bstore\.(?:find|load)\(",
            {
                *(
                    "stages/plan.py",
                    "stages/earlier.py",
                    "store/claims/__init__.py",
                    "runs/summary.py",
                ),
                *("upkeep/garbage.py", "upkeep/repair.py"),
            },
        ),
    ],
)
def test_keys_are_made_and_artifacts_found_in_one_place(call: str, allowed: set[str]) -> None:
    """Beside the plan: features known by their pixels, another's claim, a run's folder, and upkeep."""
    found = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if re.search(call, path.read_text(encoding="utf-8"))
    }
    assert found == allowed
