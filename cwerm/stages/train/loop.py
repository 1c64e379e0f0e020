"""What each worker of the train stage does: one rank of DDP."""

from __future__ import annotations

import functools
import json
import os
import platform
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cwerm.algorithms.training.evaluation import Evaluation, logits_of
from cwerm.algorithms.training.fit import DivergedError, OnStep, Training
from cwerm.algorithms.training.ranks import Ranks
from cwerm.errors import UserError
from cwerm.runtime.training import checkpoints, saved_state
from cwerm.runtime.training.ranks import rank_device
from cwerm.stages.train.data import HeldOut, training_data
from cwerm.stages.train.limits import recipe_of
from cwerm.stages.train.saving import SavesWithin
from cwerm.stages.train.settings import TrainSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HISTOGRAM_BINS = 64
PREDICTIONS = ("id", "predicted", "probability")  # of test images


def train_worker(config: dict[str, Any]) -> None:
    """Train for the epochs that are left after the last checkpoint, reporting one after each."""
    import ray.train
    import torch

    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    ranks = Ranks(
        context.get_world_size(),
        context.get_world_rank(),
        rank_device(config),
        context.get_local_rank(),
        context.get_local_world_size(),
    )
    set_kernels(config["settings"].deterministic, ranks.device)
    worker = Worker(config, ranks)
    if checkpoints.resume(worker, ranks, config) and ranks.rank == 0:
        step = f", step {begun.step}" if (begun := worker.training.begun) else ""
        where = f"epoch {len(worker.history)}{step} on {ranks.world_size} worker(s)"
        config["board"].note.remote(f"goes on after {where}")
    events = _Events(config) if ranks.rank == 0 else None
    with SavesWithin(worker.training, worker.state_within, config) as saves:
        _train(worker, saves, events, config)


def _train(worker: Worker, saves: SavesWithin, events: _Events | None, config: Any) -> None:
    """The epochs that are left."""
    import ray.train

    for epoch in range(len(worker.history), worker.epochs):
        metrics = worker.train_epoch(epoch, saves)
        if events is not None:
            events.write(worker, epoch, metrics)
        if not worker.reports(epoch):
            continue
        if events is None:
            ray.train.report(metrics)
            saves.begin_anew()
            continue
        events.put()
        with tempfile.TemporaryDirectory() as folder:
            saved_state.write_files(folder, worker.state(), epoch + 1)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
        saves.begin_anew()
        accuracy = metrics[f"{worker.curve}_accuracy"]
        remark = f"loss {metrics['train_loss']:.3f}  {worker.curve} {accuracy:.3f}"
        config["board"].post.remote(epoch + 1, remark)


def set_kernels(deterministic: bool, device: torch.device) -> None:
    """On a GPU: the same bits each time where wanted, else the fastest kernels, tried out anew each time.

    Multiplications of float32 are TF32's there, as those of convolutions are by torch's default. On CPUs
    results are the same bits either way.
    """
    import torch

    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # which cuBLAS needs for it
        torch.use_deterministic_algorithms(True)


def hardware(device: torch.device) -> dict[str, Any]:
    """What a rank computes on, which its seconds depend on."""
    import torch

    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "threads": torch.get_num_threads()}
    return {"device": processor(), "threads": torch.get_num_threads()}


def processor() -> str:
    """The model's name where the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Worker:
    """One rank: its copy of the data, and the training in progress."""

    def __init__(self, config: dict[str, Any], ranks: Ranks) -> None:
        self.settings: TrainSettings = config["settings"]
        self.ranks = ranks
        recipe = recipe_of(self.settings)
        self.data = training_data(config, recipe, ranks)
        self.training = Training(self.data.model, self.data.batches, recipe, ranks)
        validated = "validation_images" in config["images"].tables
        self.curve = "validation" if validated else "test"
        self._curve = self.data.held_out(self.curve)
        self.predictions: dict[str, Any] = {}
        """Of all test images, on rank 0, since their last evaluation: tensors id, predicted, probability."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """The metrics of each epoch so far."""
        return self.training.history

    @property
    def epochs(self) -> int:
        """Passes over the data that the training has in all."""
        return self.training.schedule.epochs

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on as if nothing had happened, and how images became its input."""
        return {
            **self.training.state(),
            "input": self.data.about,
            "predictions": self.predictions,
        }

    def state_within(self) -> dict[str, Any]:
        """As `state`, in mid-epoch, on all ranks at the same step."""
        return {**self.state(), **self.training.state_within()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state; one that `check` refuses leaves the worker as it is."""
        self.training.restore(state)
        self.predictions = state["predictions"]

    def check(self, state: dict[str, Any]) -> None:
        """Refuse a state of something else.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is not one of this training.
        """
        self.training.check(state)
        json.dumps(state["history"])
        if self.data.about.keys() != state["input"].keys():
            raise ValueError("without how samples became its input")
        if {*state["predictions"]} not in ({*PREDICTIONS}, set()):
            raise ValueError("without what it says of the test images")

    def train_epoch(self, epoch: int, on_step: OnStep | None = None) -> dict[str, Any]:
        """One pass over the data, then the evaluation; returns the same metrics on every rank."""
        try:
            metrics = self.training.epoch(epoch, on_step)
        except DivergedError as error:
            raise UserError(f"train.lr: {error}; lower train.lr") from None
        metrics |= hardware(self.ranks.device)
        if self.reports(epoch):
            metrics |= self.evaluate(self.curve, self._curve)
        if self.curve != "test" and epoch + 1 == self.epochs:
            # once, as nothing is to be chosen by them
            metrics |= self.evaluate("test", self.data.held_out("test"))
        self.history.append(metrics)
        return metrics

    def reports(self, epoch: int) -> bool:
        """Whether this epoch ends with an evaluation and a checkpoint."""
        done = epoch + 1
        return done % self.settings.report_every == 0 or done == self.epochs

    def evaluate(self, split: str, held_out: HeldOut) -> dict[str, Any]:
        """Metrics on a held-out split by their names, each rank doing its share."""
        logits = logits_of(self.training.judged, held_out.blocks(), self.data.normalise).cpu()
        part = Evaluation.from_logits(logits, held_out.labels)
        if split == "test":
            self._keep(held_out.ids, logits)
        whole = functools.reduce(Evaluation.merge, self.ranks.gather(part)).summary()
        return {f"{split}_{name}": value for name, value in whole.items()}

    def _keep(self, ids: np.ndarray, logits: Tensor) -> None:
        """Put together what all ranks say of the test images."""
        import torch

        probability, predicted = logits.double().softmax(1).max(1)
        found = self.ranks.gather((ids, predicted.numpy(), probability.numpy()))
        if self.ranks.rank == 0:
            columns = [np.concatenate(column) for column in zip(*found, strict=True)]
            order = np.argsort(columns[0])
            sorted_columns = [torch.from_numpy(column[order]) for column in columns]
            self.predictions = dict(zip(PREDICTIONS, sorted_columns, strict=True))


class _Events:
    """TensorBoard events of rank 0, written locally and put into the run folder with each checkpoint."""

    def __init__(self, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = tempfile.TemporaryDirectory()
        self._writer = SummaryWriter(self._folder.name)
        self._storage = config["store"].storage
        self._target = config["events"]

    def write(self, worker: Worker, epoch: int, metrics: dict[str, Any]) -> None:
        """Add one epoch's scalars, and at the first the histogram of weights."""
        scalars = {k: v for k, v in metrics.items() if isinstance(v, (int, float))}
        for name, value in scalars.items():
            self._writer.add_scalar(name.replace("_", "/", 1), value, epoch)
        if epoch == 0:
            # bins of one width: TensorBoard's own put all weights near 1 into one
            self._writer.add_histogram(
                "weights", worker.data.batches.weights, epoch, HISTOGRAM_BINS
            )

    def put(self) -> None:
        """Put what there is into the run folder."""
        self._writer.flush()
        for file in Path(self._folder.name).iterdir():
            self._storage.upload(file, f"{self._target}/{file.name}")
