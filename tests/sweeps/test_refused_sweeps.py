"""Sweep files that are refused before anything runs, in one line that names the key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cwerm.errors import UserError
from cwerm.sweeps.reading import parse_sweep
from cwerm.sweeps.space import load_both
from cwerm.sweeps.sweep import prepare

JOB = {"data": {"source": "sample"}, "seed": 3}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, "space: this key is required"),
        ({"spac": {}}, "spac: unknown key; did you mean 'space' or 'search'?"),
        ({"space": {"train.lr": {"uniform": [0.1, 1]}}}, "space.train.lr: a grid has no uniform"),
        ({"space": {"train.lr": {"grid": []}}}, "space.train.lr: grid takes a list"),
        (
            {"space": {"train.lr": {"log_uniform": [0, 1]}}, "search": "random"},
            "space.train.lr: log_uniform takes [low, high], low below high and above 0",
        ),
        (
            {"space": {"train.epochs": {"integer": [1, 2.5]}}, "search": "random"},
            "space.train.epochs: integer takes two whole numbers",
        ),
        ({"space": {}, "metric": "accuracy"}, "metric: "),
        ({"space": {}, "metric": ["test_accuracy", "auroc"]}, "metric: only search: optuna"),
        ({"space": {}, "mode": ["max", "min"]}, "mode: give one"),
        (
            {"space": {}, "metric": "train_loss", "mode": "max"},
            "mode: max for train_loss, of which less",
        ),
        ({"space": []}, "space: the list is empty"),
        (
            {"space": {"resources.workers": {"grid": [1, 2]}}},
            "space.resources.workers: it says how",
        ),
        ({"space": {"storage": {"grid": ["a", "b"]}}}, "space.storage: it says how or where"),
        ({"space": {"name": "a"}}, "space.name: it says how or where"),
        ({"space": {"train.lr": {"grid": [1, 0.1, 1.0]}}}, "space.train.lr: 1.0 stands twice"),
        (
            {"space": {"train": {"lr": 0.1}, "train.lr": {"grid": [0.2]}}},
            "space.train.lr: given twice",
        ),
        (
            {"space": {"train.lr": 0.1}, "job": {"train": {"lr": 0.3}}},
            "job.train.lr: the space has",
        ),
        ({"space": {"method": "erm"}, "search": "optuna"}, "space: nothing in it varies"),
        (
            {"space": {"train.epochs": {"grid": [2, 6]}}, "scheduler": "asha"},
            "space.train.epochs: a scheduler compares",
        ),
        ({"space": {}, "scheduler": "asha", "metric": "auroc"}, "metric: a scheduler needs one"),
        (
            {"space": {}, "scheduler": "asha", "metric": "test_accuracy"},
            "metric: a scheduler needs one",
        ),
        (
            {
                "space": {"train.lr": {"choice": [0.1, 0.2]}},
                **{"scheduler": "asha", "search": "optuna", "seeds": 2},
            },
            "seeds: with search: optuna",
        ),
        ({"space": [{}, {}], "search": "optuna"}, "space: search: optuna takes one space"),
        ({"space": {}, "seeds": 0}, "seeds: got 0"),
    ],
)
def test_a_wrong_sweep_is_refused_in_one_line(tree: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_sweep(tree)
    assert str(caught.value).startswith(words.partition(":")[0])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tree", "overrides", "words"),
    [
        ({"space": {"coreset": {"ratioo": {"grid": [1]}}}}, [], "space.coreset.ratioo: no key"),
        ({"space": {"method": "erm"}, "baseline": {"metod": "erm"}}, [], "baseline.metod: no key"),
        ({"space": {"seed": {"grid": [1, 2]}}, "seeds": 2}, [], "seeds: the space varies seed"),
        ({"space": {"train.lr": {"grid": [1.0]}}}, ["train.lr=2"], "train.lr: the sweep varies"),
        ({"space": {}, "job": {"train": {"epoch": 3}}}, [], "train.epoch: unknown key"),
    ],
)
def test_what_does_not_fit_the_job_is_refused(
    tree: dict[str, Any], overrides: list[str], words: str, tmp_path: Path
) -> None:
    for name, content in (("sweep", tree), ("job", JOB)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        load_both(tmp_path / "sweep.yaml", tmp_path / "job.yaml", overrides)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            {"space": {"method": {"grid": ["erm", "cw-erm"]}}, "baseline": {"method": "emr"}},
            "baseline.method: no trial has 'emr' there; did you mean 'erm'",
        ),
        (
            {"space": {"train.momentum": {"uniform": [0.5, 2.0]}}, "search": "optuna"},
            "train.momentum: got 2.0, should be a number of at least 0 and below 1",
        ),
        (
            {"space": {"train.epochs": {"uniform": [1.5, 4.0]}}, "search": "random"},
            "train.epochs: got 1.5, should be a whole number",
        ),
    ],
)
def test_what_no_trial_could_be_is_refused_before_any(
    tree: dict[str, Any], words: str, tmp_path: Path
) -> None:
    for name, content in (("sweep", tree), ("job", {**JOB, "storage": str(tmp_path / "store")})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=re.escape(words)):
        prepare(tmp_path / "sweep.yaml", tmp_path / "job.yaml")


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (
            {"data.source": ["cifar10", "mnist"]},
            "no space is for data.source 'sample'; those of the file ",
        ),
        (
            {"data.sourse": "sample"},
            "space.when.data.sourse: no key of a job; did you mean 'data.source'",
        ),
        ("sample", "space.when: takes keys of the job"),
    ],
)
def test_conditions_that_fit_nothing_are_refused(when: Any, words: str, tmp_path: Path) -> None:
    tree = {"space": {"when": when, "method": {"grid": ["erm", "cw-erm"]}}}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    with pytest.raises(UserError, match=re.escape(words)):
        load_both(tmp_path / "tune.yaml", tmp_path / "job.yaml")
