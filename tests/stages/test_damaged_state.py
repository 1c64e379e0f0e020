"""What an interrupted run has left is damaged: the last good state counts, and the result is the same."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from attacks.payload import Payload, pickled

from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.training.ranks import Ranks
from cwerm.job.tree import parse_job
from cwerm.runtime.training import checkpoints, saved_state
from cwerm.stages.common import table
from cwerm.stages.outside import Outside
from cwerm.stages.reweight import states
from cwerm.stages.reweight.learning import learn
from cwerm.stages.reweight.samples import Task
from cwerm.stages.reweight.states import state_paths
from cwerm.stages.train.loop import Worker
from cwerm.stages.train.settings import TrainSettings
from cwerm.stages.train.targets import Targets
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.schema import table_schema
from cwerm.store.storage import Storage, open_storage
from cwerm.store.writing import Writer
from stages.conftest import Chain, Fork


def evil(mark: Path) -> bytes:
    """A state whose checksum will be right."""
    buffer = io.BytesIO()
    torch.save({"model": Payload(mark), "history": []}, buffer)
    return buffer.getvalue()


def describe(data: bytes, epochs: int = 9) -> bytes:
    return json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "epochs": epochs}).encode()


def damage(storage: Storage, path: str, kind: str, mark: Path) -> None:
    """Spoil the state at ``path``, which has no suffix."""
    whole = storage.read_bytes(f"{path}.pt")
    states = {
        "garbage": b"garbage",
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "pickle": pickled(mark),
        "pickle in torch's file": evil(mark),
        "another's": b"",
    }
    if kind in states:
        data = states[kind]
        if kind == "another's":
            buffer = io.BytesIO()
            torch.save({"model": {"x": torch.zeros(3)}, "classifier": {}, "history": []}, buffer)
            data = buffer.getvalue()
        storage.write_bytes(f"{path}.pt", data)
        if "pickle" in kind or kind == "another's":
            storage.write_bytes(f"{path}.json", describe(data))
    else:
        texts = {
            "no checksum": None,
            "cut checksum": b'{"sha',
            "list": b"[]",
            "odd": b'{"epochs": -1}',
        }
        text = texts[kind]
        if text is None:
            storage.delete(f"{path}.json")
        else:
            storage.write_bytes(f"{path}.json", text)


KINDS = [
    "garbage", "empty", "cut", "pickle", "pickle in torch's file", "another's",
    "no checksum", "cut checksum", "list", "odd",
]  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "another's"])
def test_of_two_states_the_good_one_counts(tmp_path: Path, kind: str) -> None:
    storage, told = open_storage(str(tmp_path / "store")), list[str]()
    for epochs in (1, 2):
        saved_state.write(storage, f"a/state-{epochs}", {"epochs": epochs}, epochs)
    paths = ["a/state-1", "a/state-2", "a/state-3"]

    def load() -> list[dict[str, Any]]:
        told.clear()
        found = saved_state.find(storage, paths, told.append)
        return [state for _, state in saved_state.load(storage, found, told.append)]

    assert load() == [{"epochs": 2}, {"epochs": 1}]
    assert told == []
    damage(storage, "a/state-2", kind, tmp_path / "mark")
    assert load() == [{"epochs": 1}]
    assert len(told) == 1
    assert told[0].startswith("a/state-2.")
    assert told[0].endswith("counts as none")
    damage(storage, "a/state-1", kind, tmp_path / "mark")
    assert load() == []
    assert not (tmp_path / "mark").exists()


class StoppedError(Exception):
    pass


def _task(mine: Chain, writer: Writer) -> Task:
    inputs = dict(mine.plan.inputs("reweight"))
    return Task(mine.plan["reweight"].settings, inputs, mine.store, writer)


def _begin(mine: Chain, epochs: int, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """A reweighting that is cut off after some epochs, each of which was saved."""
    monkeypatch.setattr(states, "SAVE_SECONDS", -1.0)
    key = mine.plan["reweight"].key
    writer = Writer(mine.store, "reweight", key, {})

    def on_epoch(done: int) -> None:
        if done > epochs:
            raise StoppedError

    with pytest.raises(StoppedError):
        learn(_task(mine, writer), StepOptions(), on_epoch, "cpu")
    return writer


def _go_on(mine: Chain, writer: Writer) -> tuple[np.ndarray, list[int], list[str]]:
    """Weights of the whole reweighting, the epochs it went through, and what it told."""
    epochs, told = list[int](), list[str]()
    learned = learn(_task(mine, writer), StepOptions(), epochs.append, "cpu", told.append)
    return learned.weights, epochs, told


@pytest.mark.parametrize("kind", ["garbage", "pickle in torch's file", "another's", "odd"])
def test_a_reweighting_goes_on_from_the_last_good_state(
    fork: Fork, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, mark = fork("reweight"), tmp_path / "mark"
    whole, epochs, _ = _go_on(mine, Writer(mine.store, "reweight", "undisturbed", {}))
    assert epochs == [1, 2, 3, 4, 5, 6]
    writer = _begin(mine, 3, monkeypatch)
    newest = max(
        state_paths(writer),
        key=lambda path: json.loads(mine.store.storage.read_bytes(f"{path}.json"))["epochs"],
    )
    damage(mine.store.storage, newest, kind, mark)
    monkeypatch.setattr(states, "SAVE_SECONDS", 1e9)
    weights, epochs, told = _go_on(mine, writer)
    assert epochs == [3, 4, 5, 6], "the state before the damaged one"
    assert len(told) == 1
    assert told[0].startswith(f"{newest}.")
    assert np.array_equal(weights, whole)
    for path in state_paths(writer):
        damage(mine.store.storage, path, kind, mark)
    weights, epochs, told = _go_on(mine, writer)
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert len(told) == 2
    assert np.array_equal(weights, whole)
    assert not mark.exists()


def _flat(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


class _Board:
    """What a rank tells the board, as an actor's handle takes it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.note = self

    def remote(self, text: str) -> None:
        self.told.append(text)


def _worker(folder: Path, board: _Board) -> tuple[Worker, dict[str, Any]]:
    """One rank of a training on made-up images, in this process, and what it was made from."""
    tree = {
        "data": {"source": "sample"},
        "train": {"model": "small_cnn", "epochs": 5, "batch_size": 20},
    }
    store = ArtifactStore(open_storage(str(folder)))
    writer, random = Writer(store, "ingest", "key", {}), np.random.default_rng(0)
    parts = {}
    for name in ("images", "test_images"):
        pixels = random.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
        values = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
        paths = pa.array([str(i) for i in range(40)])
        columns = [pa.array(np.arange(40), pa.int64()), values, paths]
        fields = table_schema("images", value_type=values.type)
        parts[name] = [writer.write_part(name, 0, pa.table(columns, schema=fields))]
    labels = np.arange(40) % 2
    in_use = Writer(store, "label", "key", {})
    tested = table("test_labels", np.arange(40), labels, *np.zeros((2, 40), bool))
    job = parse_job(tree)
    config = {
        "settings": TrainSettings.of(job, Outside(job)),
        "labels_in_use": in_use.commit(
            {"test_labels": [in_use.write_part("test_labels", 0, tested)]}
        ),
        "store": store,
        "images": writer.commit(parts, {"class_names": ["a", "b"]}),
        "samples": np.arange(40),
        "targets": Targets(labels, np.ones(40, dtype=np.float32)),
        "samples_per_epoch": 40,
        "size": 32,
        "board": board,
        "checkpoints": "runs/small/checkpoints/key",
    }
    return Worker(config, Ranks()), config


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another model": lambda state: state["model"].popitem(),
    "another shape": lambda state: state["model"].update(
        {next(iter(state["model"])): torch.zeros(1)}
    ),
    "no optimizer": lambda state: state.pop("optimizer"),
    "momentum of another shape": lambda state: state["optimizer"]["state"].update(
        {0: {"momentum_buffer": torch.zeros(7)}}
    ),
    "a gap in the history": lambda state: state["history"].pop(0),
    "a history of words": lambda state: state.update(history=["x"]),
}


def test_a_training_goes_on_from_the_last_good_checkpoint(tmp_path: Path) -> None:
    mark, board = tmp_path / "mark", _Board()
    worker, config = _worker(tmp_path / "store", board)
    storage, folder = config["store"].storage, config["checkpoints"]
    assert not checkpoints.resume(worker, Ranks(), config)
    states = {}
    for epoch in range(3):
        worker.train_epoch(epoch)
        states[epoch + 1] = worker.state() | {"history": [*worker.history]}
        states[epoch + 1] = torch.load(io.BytesIO(_flat(states[epoch + 1])), weights_only=True)

    def leave() -> None:
        board.told.clear()
        for entry in [*storage.walk(folder)]:
            storage.delete(entry.path)
        for epochs, state in states.items():
            saved_state.write(storage, f"{folder}/checkpoint_{epochs}/state", state, epochs)

    def resumed() -> int:
        worker.training.history = []
        found = checkpoints.resume(worker, Ranks(), config)
        assert found == bool(worker.history)
        return len(worker.history)

    for kind in KINDS:
        leave()
        damage(storage, f"{folder}/checkpoint_3/state", kind, mark)
        assert resumed() == 2, kind
        assert len(board.told) == 1, kind
        damage(storage, f"{folder}/checkpoint_2/state", kind, mark)
        assert resumed() == 1, kind
    for name, change in CHANGES.items():
        leave()
        state = torch.load(io.BytesIO(_flat(states[3])), weights_only=True)
        change(state)
        saved_state.write(storage, f"{folder}/checkpoint_3/state", state, 3)
        assert resumed() == 2, name
        assert "does not fit" in board.told[0]
    leave()
    assert resumed() == 3
    kept = {entry.path.split("/")[-2] for entry in storage.walk(folder)}
    assert kept == {"checkpoint_2", "checkpoint_3"}
    assert not mark.exists()
