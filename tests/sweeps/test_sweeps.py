"""Sweep files: spaces, points, and the jobs they stand for."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cwerm.job.tree import parse_job
from cwerm.sweeps.reading import parse_sweep
from cwerm.sweeps.space import domain, load_both, points, with_validation
from cwerm.sweeps.trial import Trials

JOB = {"data": {"source": "sample"}, "seed": 3}
STUDIES = sorted((Path(__file__).parents[2] / "tune").rglob("*.yaml"))
JOB_FILE = Path(__file__).parents[2] / "jobs" / "paper" / "sample.yaml"


def trials(**changes: Any) -> Trials:
    base = parse_job(JOB).model_dump()
    given = {"name": "s", "base": base, "seeds": 1, "metrics": ("test_accuracy",)}
    return Trials(**{**given, "reports_epochs": False, "folder": "/", **changes})


def test_a_grid_is_every_combination_and_spaces_come_one_after_another() -> None:
    sweep = parse_sweep(
        {
            "space": [
                {"method": "erm"},
                {"coreset": {"ratio": {"grid": [0.1, 0.2]}}, "train.lr": {"grid": [1.0, 2.0, 3.0]}},
                {"method": "erm"},  # again: the same point is tried once
            ]
        }
    )
    pairs = itertools.product([0.1, 0.2], [1.0, 2.0, 3.0])
    expected = [{"coreset.ratio": ratio, "train.lr": lr} for ratio, lr in pairs]
    assert points(sweep, 0) == [{"method": "erm"}, *expected]
    assert sweep.keys == ["method", "coreset.ratio", "train.lr"]


def test_spaces_are_for_jobs_of_some_values(tmp_path: Path) -> None:
    space = [
        {"when": {"data.source": ["cifar10", "cifar100"]}, "train.model": {"grid": ["a", "b"]}},
        {"when": {"data": {"source": "sample"}, "seed": 3}, "train.model": "small_cnn"},
        {"method": "erm"},
    ]
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump({"space": space}))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))

    def found(*overrides: str) -> list[dict[str, Any]]:
        sweep, job = load_both(tmp_path / "tune.yaml", tmp_path / "job.yaml", overrides)
        return points(sweep, job.seed)

    assert found() == [{"train.model": "small_cnn"}, {"method": "erm"}]
    assert found("seed=4") == [{"method": "erm"}]
    assert found("data.source=cifar100") == [
        {"train.model": "a"}, {"train.model": "b"}, {"method": "erm"},
    ]  # fmt: skip


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30))
def test_random_points_lie_in_their_ranges_and_follow_the_seed(seed: int, count: int) -> None:
    space = {
        "train.lr": {"log_uniform": [1e-3, 1e-1]},
        "train.momentum": {"uniform": [0.1, 0.9]},
        "train.epochs": {"integer": [2, 4]},
        "method": {"choice": ["erm", "cw-erm"]},
        "train.batch_size": 64,
    }
    sweep = parse_sweep({"space": space, "search": "random", "num_samples": count})
    drawn = points(sweep, seed)
    assert len(drawn) == count
    for point in drawn:
        assert 1e-3 <= point["train.lr"] <= 1e-1
        assert 0.1 <= point["train.momentum"] <= 0.9
        assert point["train.epochs"] in (2, 3, 4)
        assert point["method"] in ("erm", "cw-erm")
        assert point["train.batch_size"] == 64
    assert drawn == points(sweep, seed)
    assert drawn != points(sweep, seed + 1)


def test_integers_include_both_bounds() -> None:
    drawn = {domain({"integer": [1, 3]}).sample() for _ in range(200)}
    assert drawn == {1, 2, 3}


def test_a_trial_is_the_job_with_the_points_values() -> None:
    (job,) = trials().jobs({"coreset.ratio": 0.25, "method": "cw-erm", "seed": 5})
    expected = parse_job({**JOB, "seed": 5, "coreset": {"ratio": 0.25}})
    assert job.model_copy(update={"name": "run"}) == expected
    assert job.name.startswith("s-")


def test_names_tell_trials_apart_and_not_where_they_run() -> None:
    base = parse_job({**JOB, "storage": "/elsewhere", "resources": {"workers": 7}}).model_dump()
    name = trials().jobs({"seed": 0})[0].name
    assert trials(base=base).jobs({"seed": 0})[0].name == name
    others = [{"seed": 1}, {"seed": 0, "train.lr": 0.2}, {"seed": 0, "control": "permuted"}]
    assert len({name, *(trials().jobs(point)[0].name for point in others)}) == 4


def test_a_point_of_optuna_is_run_with_all_seeds() -> None:
    assert [job.seed for job in trials(seeds=3).jobs({"train.lr": 0.2})] == [3, 4, 5]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("name", ["sample", "cifar10", "cifar100", "fashion_mnist"])
def test_the_studies_give_valid_jobs(path: Path, name: str) -> None:
    if name == "sample" and path.parent.name == "paper":
        pytest.skip("for the paper's data alone")
    sweep, job = load_both(path, JOB_FILE.with_name(f"{name}.yaml"))
    base = job.model_dump()
    found = points(sweep, job.seed)
    assert len(found) >= 3
    names = {trials(base=base).jobs(point)[0].name for point in found}
    assert len(names) == len(found)


def test_each_metric_knows_its_direction() -> None:
    metrics = ["validation_accuracy", "seconds_total", "train_loss"]
    tree = {"space": {"train.lr": {"uniform": [0.1, 0.2]}}, "search": "optuna", "metric": metrics}
    assert parse_sweep(tree).modes == ["max", "min", "min"]
    assert parse_sweep({**tree, "mode": ["max", "min", "min"]}).modes == ["max", "min", "min"]


@pytest.mark.parametrize(
    ("tree", "data", "drawn"),
    [
        ({}, {}, 0.1),
        (
            {
                "metric": ["seconds_total", "validation_accuracy_top5"],
                **{"search": "optuna", "space": {"method": {"choice": ["erm", "cw-erm"]}}},
            },
            {},
            0.1,
        ),
        ({"metric": "test_accuracy"}, {}, 0.0),
        ({"space": {"data.validation_fraction": {"grid": [0.1, 0.3]}}}, {}, 0.0),
        ({}, {"validation_fraction": 0.3}, 0.3),
        ({}, {"validation": "images/val"}, 0.0),
    ],
)
def test_a_sweep_has_validation_images_to_be_judged_by(
    tree: dict[str, Any], data: dict[str, Any], drawn: float
) -> None:
    sweep = parse_sweep({"space": {"method": "erm"}, **tree})
    job = with_validation(sweep, parse_job({"data": {"source": "sample", **data}}))
    assert job.data.validation_fraction == drawn


def test_the_order_of_settings_file_then_sweep_then_command_line(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "space: {method: erm}\njob: {train: {epochs: 2, lr: 0.3}}\n"
    )
    (tmp_path / "job.yaml").write_text(
        "data: {source: sample}\ntrain: {epochs: 9, momentum: 0.5}\n"
    )
    _, job = load_both(tmp_path / "sweep.yaml", tmp_path / "job.yaml", ["train.lr=0.4"])
    assert (job.train.epochs, job.train.lr, job.train.momentum) == (2, 0.4, 0.5)
