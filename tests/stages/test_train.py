"""Train: metrics, events, weights and the loop itself, against plain PyTorch on plain arrays."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load
from torch.nn import functional

import cwerm.algorithms.networks.models
from cwerm.algorithms.training import erm
from cwerm.stages import common
from cwerm.stages.train.loop import set_kernels
from cwerm.stages.train.settings import TrainSettings
from cwerm.stages.train.targets import Targets
from cwerm.store.artifacts import Artifact
from stages.conftest import Chain, Fork, run_stages

assert cwerm.algorithms.networks.models  # registers resnet20 with timm


def images_of(chain: Chain, table: str) -> tuple[torch.Tensor, torch.Tensor]:
    """All images as uint8 [n, 3, 28, 28], decoded by Pillow alone, and their labels."""
    rows = chain.table("ingest", table).to_pylist()
    name = {"images": "given_labels", "test_images": "given_test_labels"}[table]
    labels = chain.table("ingest", name).column("label").to_pylist()
    decoded = [np.asarray(Image.open(io.BytesIO(r["image"])).convert("RGB")) for r in rows]
    values = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
    return values, torch.tensor(labels)


def saved_model(chain: Chain, artifact: Artifact, folder: Path) -> tuple[Any, dict[str, Any]]:
    """A timm model with the saved tensors, and the file's description."""
    path = folder / "model.safetensors"
    path.write_bytes(chain.store.read_file(artifact, "model.safetensors"))
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = json.loads(file.metadata()["cwerm"])
    model = timm.create_model(description["model"], num_classes=len(description["class_names"]))
    model.load_state_dict(tensors)
    return model.eval(), description


def standardised(images: torch.Tensor, description: dict[str, Any]) -> torch.Tensor:
    mean, std = (torch.tensor(description[k])[:, None, None] for k in ("mean", "std"))
    return images.float() * (1 / (255 * std)) - mean / std


def test_the_readme_loads_the_model(
    trained: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = trained.made["train"]
    file = trained.store.read_file(artifact, "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(file)
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (block,) = [block for block in blocks if "safe_open" in block]
    images, labels = images_of(trained, "test_images")
    given: dict[str, Any] = {"images": images}
    with torch.inference_mode():
        exec(block, given)
    hits = given["logits"].argmax(1) == labels
    one = 0.01 + 1e-9  # a near tie may tip, as below
    assert math.isclose(artifact.info["test_accuracy"], hits.double().mean(), abs_tol=one)


def test_the_accuracy_is_that_of_the_saved_model(trained: Chain, tmp_path: Path) -> None:
    artifact = trained.made["train"]
    model, description = saved_model(trained, artifact, tmp_path)
    images, labels = images_of(trained, "test_images")
    with torch.inference_mode():
        logits = model(standardised(images, description)).double()
    hits = logits.argmax(1) == labels
    top5 = (logits.topk(5).indices == labels[:, None]).any(1)
    # float32 in batches of another size may tip a near tie: one image of the hundred at most
    one = 0.01 + 1e-9
    assert math.isclose(artifact.info["test_accuracy"], hits.double().mean().item(), abs_tol=one)
    assert math.isclose(artifact.info["test_accuracy_top5"], top5.double().mean(), abs_tol=one)
    loss = functional.cross_entropy(logits, labels).item()
    assert math.isclose(artifact.info["test_loss"], loss, rel_tol=1e-4)
    per_class = artifact.info["test_per_class_accuracy"]
    assert math.isclose(np.mean(per_class), artifact.info["test_accuracy"], abs_tol=1e-9)
    kept = np.setdiff1d(np.arange(400), common.column(trained.table("select", "meta"), "id"))
    values = images_of(trained, "images")[0][kept].double() / 255
    np.testing.assert_allclose(description["mean"], values.mean(dim=(0, 2, 3)), rtol=1e-6)
    deviation = values.std(dim=(0, 2, 3), correction=0)
    np.testing.assert_allclose(description["std"], deviation, rtol=1e-6)


def test_the_events_are_readable(trained: Chain) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(trained.job.storage, "runs/small/events/small")
    events = EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0})
    events.Reload()
    history = json.loads(trained.store.read_file(trained.made["train"], "history.json"))
    for name in ("train_loss", "train_accuracy", "test_accuracy", "test_loss", "lr"):
        found = events.Scalars(name.replace("_", "/", 1))
        assert [event.step for event in found] == [0, 1, 2]
        np.testing.assert_allclose([e.value for e in found], [h[name] for h in history], rtol=1e-6)
    (histogram,) = events.Histograms("weights")
    meta = common.column(trained.table("select", "meta"), "id")
    weights = np.delete(common.column(trained.table("broadcast", "weights"), "weight"), meta)
    value = histogram.histogram_value
    assert value.num == len(weights)
    assert sum(count > 0 for count in value.bucket) > 5, "weights near 1 fill more than one bucket"
    np.testing.assert_allclose(
        [value.min, value.max, value.sum], [weights.min(), weights.max(), weights.sum()], rtol=1e-4
    )


@pytest.mark.slow
def test_one_worker_equals_a_plain_loop(fork: Fork, chain: Chain, tmp_path: Path) -> None:
    changes = {"train__epochs": 1, "train__lr": 0.02}
    mine = fork("train", **changes)
    artifact = mine.run("train")
    found, description = saved_model(mine, artifact, tmp_path)

    meta = common.column(chain.table("select", "meta"), "id")
    kept = np.setdiff1d(np.arange(400), meta)
    images, labels = images_of(chain, "images")
    images, labels = images[kept], labels[kept]
    weights = torch.from_numpy(common.column(chain.table("broadcast", "weights"), "weight")[kept])
    torch.manual_seed(mine.job.seed)
    model = timm.create_model("resnet20", num_classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, weight_decay=5e-4)
    batches = erm.epoch_batches(len(kept), 50, mine.job.seed, 0)
    offsets, flips = erm.augmentation_draws(len(kept), mine.job.seed, 0, 4)
    model.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    total = 0.0
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * step / len(batches)))
        crops = []
        for position in batch:
            padded = functional.pad(images[position], [4] * 4)
            top, left = offsets[position]
            crop = padded[:, top : top + 28, left : left + 28]
            crops.append(crop.flip(2) if flips[position] else crop)
        inputs = standardised(torch.stack(crops), description)
        losses = functional.cross_entropy(
            model(inputs.contiguous(memory_format=torch.channels_last)),
            labels[batch],
            reduction="none",
        )
        loss = weights[batch] @ losses * (1 / len(batch))
        total += loss.item() * len(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    for name, value in found.state_dict().items():
        expected = model.state_dict()[name]
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    assert math.isclose(artifact.info["train_loss"], total / len(kept), rel_tol=1e-5)


def trained_tensors(chain: Chain) -> dict[str, np.ndarray]:
    return load(chain.store.read_file(chain.made["train"], "model.safetensors"))


def _worker(chain: Chain, weights: np.ndarray) -> Any:
    """One rank of the training, in this process, for a model without batch statistics."""
    from cwerm.algorithms.training.ranks import Ranks
    from cwerm.stages.train.loop import Worker

    config = {
        "settings": TrainSettings.of(chain.job, chain.plan.outside),
        "store": chain.store,
        "images": chain.made["ingest"],
        "labels_in_use": chain.run("label"),
        "samples": np.arange(400),
        "targets": Targets(chain.labels, weights),
        "samples_per_epoch": 400,
        "size": 32,
    }
    return Worker(config, Ranks())


def test_a_sample_of_weight_zero_has_no_influence(fork: Fork) -> None:
    mine = fork("train", train__model="test_vit", train__image_size=32, train__epochs=1)
    zero = np.arange(0, 400, 3)
    values = np.ones(400, dtype=np.float32)
    values[zero] = 0
    models = []
    for shuffled in (None, zero, zero + 1):
        worker = _worker(mine, values)
        if shuffled is not None:
            rows = torch.from_numpy(shuffled[shuffled < 400])
            noise = torch.randint(0, 256, (len(rows), 3, 32, 32), dtype=torch.uint8)
            worker.data.batches.samples[rows] = noise
        worker.train_epoch(0)
        models.append({name: v.clone() for name, v in worker.training.model.state_dict().items()})
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=1e-4, atol=1e-6, msg=name)
    moved = [not torch.allclose(models[2][n], v, rtol=1e-3) for n, v in models[0].items()]
    assert any(moved), "samples of weight one do have influence"


def test_small_loss_learns_from_the_smallest_losses_of_a_batch(fork: Fork) -> None:
    """Half of 0.4 in the sixth epoch: as weights of 0 for the 80 largest of 400 losses would."""
    plain = {"train__model": "test_vit", "train__image_size": 32, "train__batch_size": 400}
    plain |= {"train__crop_padding": 0, "train__flip": False, "train__epochs": 10}
    small = {"train__loss": "small_loss", "train__wrong_share": 0.4}
    ones = np.ones(400, dtype=np.float32)
    worker = _worker(fork("train", **plain, **small), ones)
    with torch.no_grad():
        logits = worker.training.model.train()(
            worker.data.batches.normalise(worker.data.batches.samples)
        )
    losses = functional.cross_entropy(logits, worker.data.batches.labels, reduction="none")
    weights = np.full(400, 400 / 320, dtype=np.float32)
    weights[losses.argsort(descending=True)[:80]] = 0
    by_weights = _worker(fork("train", **plain), weights)
    for trained in (worker, by_weights):
        trained.train_epoch(5)
    for name, value in worker.training.model.state_dict().items():
        torch.testing.assert_close(
            value, by_weights.training.model.state_dict()[name], rtol=1e-4, atol=1e-6
        )


def test_a_finished_training_leaves_no_checkpoints(trained: Chain) -> None:
    assert not [*Path(trained.job.storage, "runs/small").glob("**/checkpoints")]


@pytest.mark.slow
def test_a_finished_training_whose_artifact_was_deleted_is_published_again(
    trained: Chain, fork: Fork
) -> None:
    mine = fork("train", resources__workers=2, train__keep_checkpoints=3)
    first = run_stages(mine.job, "train").made["train"]
    storage = Path(mine.job.storage)
    kept = {file: file.stat().st_mtime_ns for file in storage.glob("runs/**/state.pt")}
    assert len(kept) == min(3, mine.job.train.epochs)
    shutil.rmtree(storage / first.folder)
    again = run_stages(mine.job, "train").made["train"]
    left = {file: file.stat().st_mtime_ns for file in storage.glob("runs/**/state.pt")}
    assert len(left) == 2, "that which was taken up, and the one before"
    assert left.items() <= kept.items(), "no epoch was trained anew"
    found = load(mine.store.read_file(again, "model.safetensors"))
    expected = trained_tensors(trained)
    assert all(np.array_equal(found[name], value) for name, value in expected.items())


def test_determinism_is_as_asked(fork: Fork) -> None:
    before = torch.backends.cudnn.benchmark
    ones = np.ones(400, dtype=np.float32)
    changes = {"train__model": "small_cnn", "train__epochs": 1, "train__deterministic": True}
    worker = _worker(fork("train", **changes), ones)
    try:
        for wanted in (False, True):
            set_kernels(wanted, torch.device("cpu"))
            assert torch.backends.cudnn.benchmark != wanted
            assert torch.are_deterministic_algorithms_enabled() == wanted
        metrics = worker.train_epoch(0)  # nothing of a step is without a deterministic way
        assert worker.settings.deterministic
        assert math.isfinite(metrics["train_loss"])
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = before
