"""Training that streams its images: on ranks as in one process, killed in mid-epoch, and told."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from cwerm.algorithms.training.batches import PixelBatches
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.streaming.batches import StreamedBatches
from cwerm.algorithms.training.streaming.order import stream_batches
from cwerm.runtime.training import checkpoints, saved_state
from cwerm.stages.train import loop_inputs, tell_of_streaming
from cwerm.stages.train.loop import Worker
from cwerm.stages.train.saving import SavesWithin
from cwerm.terminal import console
from stages.conftest import Chain, Fork
from stages.test_kill import Command, committed

STREAMED = {"train__memory_bytes": 0}


def worker_of(mine: Chain) -> tuple[Worker, dict[str, Any]]:
    """One rank of the training, in this process."""
    settings: Any = mine.plan["train"].settings
    config = loop_inputs(settings, mine.plan.inputs("train"), mine.store)
    return Worker(config, Ranks()), config


def test_it_streams_what_it_would_hold(fork: Fork) -> None:
    """The same images, labels, weights and figures of the channels, in the order of streams."""
    held, _ = worker_of(fork("train"))
    streamed, config = worker_of(fork("train", **STREAMED))
    assert isinstance(held.data.batches, PixelBatches)
    assert isinstance(streamed.data.batches, StreamedBatches)
    samples = config["samples"]
    sizes = np.bincount(samples // 50)
    order = stream_batches(sizes, len(samples), 50, 32, 0, 0)
    images = held.data.batches.samples
    assert streamed.data.about["mean"] == pytest.approx(held.data.about["mean"], rel=1e-12)
    seen = streamed.data.batches.images
    rows = np.concatenate(
        [seen.decode(seen.read(p, np.arange(s.start, s.stop))) for p, s in seen.pieces()]
    )
    assert np.array_equal(rows, images.numpy())
    for batch, own in zip(streamed.data.batches.epoch(0), order, strict=True):
        assert torch.equal(batch.labels, held.data.batches.labels[own])
        assert torch.equal(batch.weights, held.data.batches.weights[own])
    one, other = held.data.held_out("test"), streamed.data.held_out("test")
    assert torch.equal(torch.cat([*one.blocks()]), torch.cat([*other.blocks()]))


def test_two_ranks_train_as_one_would(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without batch statistics; what is decoded is told."""
    notes: list[str] = []
    monkeypatch.setattr(console, "note", notes.append)
    asked = {"train__model": "test_vit", "train__image_size": 32, "train__epochs": 2}
    alone, _ = worker_of(fork("train", **STREAMED, **asked))
    for epoch in range(2):
        alone.train_epoch(epoch)
    made = fork("train", **STREAMED, **asked, resources__workers=2).run("train")
    assert any("are streamed: 8 of 8 parts are mixed at a time" in note for note in notes)
    assert made.info["train_loss"] == pytest.approx(alone.history[-1]["train_loss"], rel=1e-4)
    assert made.info["workers"] == 2
    assert not [*Path(tempfile.gettempdir()).glob("cwerm-pixels-*")]


def test_classes_that_lie_together_are_told(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    _, read = worker_of(fork("train", **STREAMED))
    settings: Any = fork("train", **STREAMED, train__window=9).plan["train"].settings
    images = read["images"]
    (part, *_) = images.tables["images"]
    small = (dataclasses.replace(part, rows=5),) * (images.rows("images") // 5)
    read["images"] = dataclasses.replace(images, tables={**images.tables, "images": small})
    notes: list[str] = []
    monkeypatch.setattr(console, "note", notes.append)
    tell_of_streaming(settings, read)
    assert len(notes) == 1  # the classes of this source are mixed
    read["targets"].labels.sort()
    tell_of_streaming(settings, read)
    assert f"streamed: 8 of {len(small)} parts are mixed at a time" in notes[1]
    lacking = int(re.findall(r"lacks the classes of (\d+)% of all", notes[-1])[0])
    # a class is a tenth of the parts, one in eight of which is there at a time
    assert 10 < lacking < 40


def test_saved_in_mid_epoch_and_taken_up(fork: Fork) -> None:
    mine = fork("train", **STREAMED, train__epochs=2)
    whole, config = worker_of(mine)
    config |= {"checkpoint_minutes": 1e-9, "checkpoints": "runs/small/checkpoints/key"}
    config["board"] = None
    storage = mine.store.storage
    with SavesWithin(whole.training, whole.state_within, config) as saves:
        saves._look = 1
        whole.train_epoch(0, saves)
    found = checkpoints.find(storage, config["checkpoints"], print)
    assert [(saved.epochs, saved.steps) for saved in found] == [(0, 7), (0, 6)]
    other, _ = worker_of(mine)
    assert checkpoints.resume(other, Ranks(), config)
    begun = other.training.begun
    assert begun is not None
    assert (begun.step, len(other.history)) == (7, 0)
    other.train_epoch(0)
    for name, value in whole.training.model.state_dict().items():
        assert torch.equal(value, other.training.model.state_dict()[name]), name
    saves.begin_anew()
    assert not checkpoints.find(storage, config["checkpoints"], print)


def test_a_damaged_one_counts_as_none(fork: Fork) -> None:
    mine = fork("train", **STREAMED)
    worker, config = worker_of(mine)
    notes: list[str] = []

    board = SimpleNamespace(note=SimpleNamespace(remote=notes.append))
    config |= {"checkpoints": "runs/small/checkpoints/key", "board": board}
    state = {**worker.state(), "begun": {"step": 99, "totals": torch.zeros(3), "seconds": 0.0}}
    dumped = saved_state.dump(state, 0, 99)
    saved_state.put(mine.store.storage, f"{config['checkpoints']}/within_1/state", dumped)
    assert not checkpoints.resume(worker, Ranks(), config)
    assert "of other steps" in notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("who", ["driver", "worker"])
def test_killed_in_mid_epoch(who: str, fork: Fork, tmp_path: Path) -> None:
    """The command run again goes on at a step, and ends with the undisturbed model."""
    asked = {
        **STREAMED,
        "train__epochs": 1,
        "train__batch_size": 4,
        "train__checkpoint_minutes": 0.02,
    }
    undisturbed = fork("train", **asked)
    expected = load(undisturbed.store.read_file(undisturbed.run("train"), "model.safetensors"))
    mine = fork("train", **asked)
    command = Command(mine, "train", tmp_path)
    folder = Path(mine.job.storage, "runs/small/checkpoints", mine.plan["train"].key)
    command.wait_until(lambda: [*folder.glob("within_*/state.pt")])
    if who == "driver":
        command.kill()
        command = Command(mine, "train", tmp_path)
    else:
        command.kill_worker("RayTrainWorker")
    assert committed(mine, "train") is None, "struck too late"
    assert "goes on after epoch 0, step " in command.finish()
    artifact = committed(mine, "train")
    assert artifact
    found = load(mine.store.read_file(artifact, "model.safetensors"))
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
    assert len(json.loads(mine.store.read_file(artifact, "history.json"))) == 1
    assert not folder.exists()
