"""What a dry run says, against what a run then makes, and against counts by hand."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli.commands import process
from torch import nn

from cwerm import pipeline
from cwerm.errors import UserError
from cwerm.forecast import work
from cwerm.forecast.forecast import forecast
from cwerm.forecast.work import classifier_pass
from cwerm.job.tree import Job
from cwerm.sweeps.sweep import prepare

Make = Callable[..., Job]


def test_nothing_is_written_and_what_is_there_is_seen(ray_session: None, make_job: Make) -> None:
    job = make_job()
    before = forecast([job])
    assert not Path(job.storage).exists()
    assert {asked.stage for asked in before.to_make()} == {*pipeline.plan(job).names}

    pipeline.plan(job, "ingest").execute("ingest")
    after = forecast([job])
    made = {asked.stage for asked in after.artifacts if asked.is_made}
    assert made == {"ingest"}
    assert [asked.is_made for asked in forecast([make_job(data__limit=200)]).artifacts] == [
        False
    ] * 6


def test_counts_are_those_of_the_keys(make_job: Make) -> None:
    """Of three methods and two seeds: what several need is one artifact."""
    jobs = [
        make_job(method=method, seed=seed)
        for method, seed in itertools.product(["cw-erm", "c-moderate-erm", "erm"], [0, 1])
    ]
    asked = Counter(
        (name, steps[name].key) for steps in map(pipeline.plan, jobs) for name in steps.names
    )
    found = forecast(jobs)
    assert len(found.artifacts) == len(asked)
    assert Counter(a.stage for a in found.artifacts) == Counter(name for name, _ in asked)
    assert sorted(a.jobs for a in found.artifacts) == sorted(asked.values())


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_papers_table_without_its_data(data: str, tmp_path: Path) -> None:
    """5 methods, 2 classifiers, 2 extractors, 5 seeds: extractors matter to 2 methods alone."""
    methods = ["erm", "w-erm", "c-random-erm", "c-moderate-erm", "cw-erm"]
    backbones = ["vit_base_patch16_224.augreg_in21k_ft_in1k", "resnet50.a1_in1k"]
    space = {
        "method": {"grid": methods},
        "train.model": {"grid": ["resnet20", "preactresnet18"]},
        "features.backbone": {"grid": backbones},
    }
    tree = {
        "data": {"source": data, "root": str(tmp_path / "none")},
        "coreset": {"meta": "hold_out"},
    }
    tree |= {
        "reweight": {"method": "metaweightnet", "preset": "paper"},
        "storage": str(tmp_path / "store"),
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(tree))
    sweep = {"name": "table", "seeds": 5, "metric": "test_accuracy", "space": space}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(sweep))
    prepared = prepare(tmp_path / "tune.yaml", tmp_path / "job.yaml")
    assert len(prepared.jobs) == 100
    found = forecast(prepared.jobs)
    assert found.absent == {"data.source": data}
    assert len(found.to_make("train")) == 3 * 2 * 5 + 2 * 2 * 2 * 5
    assert len(found.to_make("extract")) == 2
    assert all(asked.is_made is None for asked in found.artifacts)
    assert {path.name for path in tmp_path.iterdir()} == {"job.yaml", "tune.yaml"}, "no download"


def test_operations_are_those_of_the_layers() -> None:
    """Multiplications and additions of convolutions and of the last layer, counted by hooks."""
    import timm
    import torch

    model = timm.create_model("resnet20", num_classes=10).eval()
    counted = 0

    def count(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(layer, nn.Conv2d):
            inputs = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
            counted += 2 * inputs * output.numel()
        elif isinstance(layer, nn.Linear):
            counted += 2 * layer.in_features * output.numel()

    for layer in model.modules():
        layer.register_forward_hook(count)
    model(torch.zeros(1, 3, 28, 28))
    operations, parameters = classifier_pass("train", "resnet20", 28)
    assert operations == counted
    assert parameters == sum(value.numel() for value in model.parameters())


def test_work_follows_images_and_epochs(make_job: Make) -> None:
    def operations(**changes: Any) -> float:
        (asked,) = forecast([make_job(method="erm", **changes)]).to_make("train")
        assert asked.work.operations
        return asked.work.operations

    one, _ = classifier_pass("train", "resnet20", 28)
    assert operations() == one * (work.TRAINING * 2 * 400 + 2 * 100)
    assert operations(train__epochs=6) == one * (work.TRAINING * 6 * 400 + 6 * 100)
    assert operations(data__limit=200) == one * (work.TRAINING * 6 * 200 + 6 * 100)


def test_weights_that_are_absent_are_named_and_a_missing_folder_is_refused(make_job: Make) -> None:
    found = forecast([make_job(features__weights="/nowhere/vit.pth")])
    assert [*found.absent] == ["features.weights"]
    known = {asked.stage: asked.is_made for asked in found.artifacts}
    assert known["ingest"] is False
    assert known["extract"] is known["train"] is None
    jobs = [make_job(method="c-random-erm", seed=1), make_job(method="cw-erm")]
    both = {a.stage: a.is_made for a in forecast(jobs[:1]).artifacts}
    assert both["train"] is False, "of no features"
    with pytest.raises(UserError, match=r"^data\.source: "):
        forecast([make_job(data__source="/nowhere/images")])


def test_the_commands(job_tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job_tree))
    space = {"train.lr": {"grid": [0.1, 0.2]}}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump({"name": "rates", "space": space}))
    run = process("run", tmp_path / "job.yaml", "--dry-run")
    run.succeeded()
    assert "6 artifacts to make, with 1 training;" in run.out
    sweep = process("sweep", tmp_path / "tune.yaml", tmp_path / "job.yaml", "--dry-run", "--json")
    assert sweep.code == 0, sweep.err
    answer = json.loads(sweep.out)
    assert answer["stages"]["train"] == {"distinct": 2, "asked": 2, "made": 0}
    assert answer["stages"]["broadcast"] == {"distinct": 1, "asked": 2, "made": 0}
    assert answer["hours"] > 0
    assert not Path(job_tree["storage"]).exists()
