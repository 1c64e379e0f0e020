"""Recipes as the stage runs them: what is in its key, and what is saved and taken up again."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from safetensors.torch import load

from cwerm.algorithms.training.ranks import Ranks
from cwerm.errors import UserError
from cwerm.stages.train.limits import check_batch_size, recipe_of, schedule_of
from cwerm.stages.train.loop import Worker
from cwerm.stages.train.settings import OPTIONS, TrainSettings
from cwerm.stages.train.targets import Targets
from cwerm.terminal import console
from stages.conftest import Chain, Fork

ASKED = {
    "optimizer": "adamw",
    "lr": 0.01,
    "ema": 0.9,
    "warmup_epochs": 1,
    "max_steps": 20,
    "clip_gradient_norm": 1.0,
    "accumulate": 2,
    "crop": "resized",
    "augment": "trivial",
    "mixup": 0.2,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "epochs": 4,
    "model": "small_cnn",
}
CHANGES = {f"train__{name}": value for name, value in ASKED.items()}


def settings_of(chain: Chain, **changes: Any) -> TrainSettings:
    tree = chain.job.model_dump()
    tree["train"] |= changes
    return TrainSettings.of(type(chain.job).model_validate(tree), chain.plan.outside)


def test_what_is_not_asked_for_is_in_no_key(chain: Chain) -> None:
    plain = settings_of(chain).model_dump(exclude_none=True)
    assert not plain.keys() & {*OPTIONS, "betas"}
    # without effect
    assert settings_of(chain, betas=[0.5, 0.5]).model_dump(exclude_none=True) == plain
    asked = settings_of(chain, **ASKED).model_dump(exclude_none=True)
    assert asked.keys() >= {*OPTIONS, "betas"} - {"head_lr_factor"}
    assert asked["crop_padding"] == 0
    assert "momentum" not in asked
    recipe = recipe_of(settings_of(chain, **ASKED))
    for name in {*OPTIONS} & ASKED.keys():
        assert getattr(recipe, name) == ASKED[name], name


def test_a_batch_in_parts_has_enough_in_each() -> None:
    check_batch_size(16, 2, 4)
    with pytest.raises(UserError, match=r"over 2 workers in 4 parts each .* use at least 16"):
        check_batch_size(15, 2, 4)


def test_steps_are_told_where_they_end_nothing(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(console, "note", said.append)
    assert schedule_of(settings_of(chain, max_steps=12), 380).epochs == 2
    assert not said
    assert schedule_of(settings_of(chain, max_steps=99), 380).steps == 24
    assert said == ["train.max_steps: 3 epochs are over before, after 24 steps"]
    with pytest.raises(UserError, match=r"train\.warmup_epochs: a warmup of 16 steps"):
        schedule_of(settings_of(chain, max_steps=16, warmup_epochs=2), 380)


@pytest.mark.slow
def test_a_training_by_a_whole_recipe(fork: Fork) -> None:
    """One worker through Ray ends with what the same loop gives in this process, which was stopped midway."""
    mine = fork("train", **CHANGES)
    artifact = mine.run("train")
    history = json.loads(mine.store.read_file(artifact, "history.json"))
    assert [epoch["epoch"] for epoch in history] == [0, 1, 2]
    saved = load(mine.store.read_file(artifact, "model.safetensors"))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    first = a_worker(mine)
    for epoch in range(2):
        first.train_epoch(epoch)
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    second = a_worker(mine)
    second.check(state)
    second.restore(state)
    metrics = second.train_epoch(2)
    torch.set_num_threads(threads)
    assert second.epochs == 3
    for name, value in second.training.judged.state_dict().items():
        assert torch.equal(saved[name], value), name
    raw = second.training.model.state_dict()
    assert any(not torch.equal(saved[name], value) for name, value in raw.items())
    for name in ("train_loss", "test_accuracy", "lr"):
        assert history[-1][name] == metrics[name]


def a_worker(chain: Chain) -> Worker:
    samples, weights = chain.training_set()
    config = {
        "settings": TrainSettings.of(chain.job, chain.plan.outside),
        "store": chain.store,
        "images": chain.made["ingest"],
        "labels_in_use": chain.run("label"),
        "samples": samples,
        "targets": Targets(chain.labels[samples], weights),
        "samples_per_epoch": len(samples),
        "size": 28,
    }
    return Worker(config, Ranks())


def test_other_recipes_are_other_trainings(chain: Chain) -> None:
    one_each = [settings_of(chain, **{name: value}) for name, value in ASKED.items()]
    kept = {
        settings.model_dump_json(exclude_none=True) for settings in [*one_each, settings_of(chain)]
    }
    assert len(kept) == len(ASKED) + 1
