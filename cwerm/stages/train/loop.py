"""What each worker of the train stage does: one rank of DDP over the whole decoded data set."""

from __future__ import annotations

import json
import math
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cwerm.algorithms.networks.timm_models import channels_last
from cwerm.algorithms.training import erm
from cwerm.algorithms.training.evaluation import Evaluation
from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.runtime import checkpoints, saved_state
from cwerm.runtime.ranks import rank_device
from cwerm.stages import pixels
from cwerm.stages.classifiers import create_classifier, freeze_unused
from cwerm.store.artifacts import Artifact, ArtifactStore

EVALUATION_BATCH = 500
HISTOGRAM_BINS = 64


def train_worker(config: dict[str, Any]) -> None:
    """Train for the epochs that are left after the last checkpoint, reporting one after each."""
    import ray.train
    import torch

    torch.set_num_threads(config["threads"])
    torch.backends.cudnn.benchmark = True
    context = ray.train.get_context()
    worker = Worker(config, rank_device(config), context.get_world_size(), context.get_world_rank())
    if checkpoints.resume(worker, config) and worker.rank == 0:
        where = f"epoch {len(worker.history)} on {worker.world_size} worker(s)"
        config["board"].note.remote(f"goes on after {where}")
    events = _Events(config) if worker.rank == 0 else None
    for epoch in range(len(worker.history), worker.job.train.epochs):
        metrics = worker.train_epoch(epoch)
        if events is not None:
            events.write(worker, epoch, metrics)
        if not worker.reports(epoch):
            continue
        if events is None:
            ray.train.report(metrics)
            continue
        with tempfile.TemporaryDirectory() as folder:
            saved_state.write_files(folder, worker.state(), epoch + 1)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
        remark = f"loss {metrics['train_loss']:.3f}  test {metrics['test_accuracy']:.3f}"
        config["board"].post.remote(epoch + 1, remark)


def make_optimizer(model: Any, job: Job) -> Any:
    """The optimizer of a model."""
    import torch

    section = job.train
    return torch.optim.SGD(
        model.parameters(),
        lr=section.lr,
        momentum=section.momentum,
        weight_decay=section.weight_decay,
    )


class Worker:
    """One rank: its copy of the data, the model and the optimizer."""

    def __init__(self, config: dict[str, Any], device: Any, world_size: int, rank: int) -> None:
        import torch
        from torch.nn.parallel import DistributedDataParallel

        self.job: Job = config["job"]
        self.device, self.world_size, self.rank = device, world_size, rank
        store: ArtifactStore = config["store"]
        images: Artifact = config["images"]
        size = config["size"]
        train, labels = pixels.load_pixels(store, images, "images", size)
        samples = config["samples"]
        self.normalise = pixels.Normaliser.of(train[samples])
        self.images = torch.from_numpy(train[samples]).to(device)
        self.labels = torch.from_numpy(labels[samples]).to(device)
        self.weights = torch.from_numpy(config["weights"]).to(device)
        self.samples_per_epoch: int = config["samples_per_epoch"]
        test, test_labels = pixels.load_pixels(store, images, "test_images", size)
        self.test_images = torch.from_numpy(test[rank::world_size]).to(device)
        self.test_labels = torch.from_numpy(test_labels[rank::world_size]).to(device)

        classes = len(images.info["class_names"])
        seed = self.job.seed
        model = create_classifier("train.model", self.job.train.model, classes, size, seed)
        if world_size > 1:
            freeze_unused(model, size)
        self.model = channels_last(model.to(device))
        self.parallel: Any = self.model
        if world_size > 1:
            devices = [device] if device.type == "cuda" else None
            # Running statistics are averaged once an epoch instead of sent at every step.
            self.parallel = DistributedDataParallel(
                self.model, device_ids=devices, broadcast_buffers=False
            )
        self.optimizer = make_optimizer(self.model, self.job)
        self.history: list[dict[str, Any]] = []

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on as if nothing had happened."""
        normaliser = {name: list(value) for name, value in asdict(self.normalise).items()}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "input": {**normaliser, "image_size": int(self.images.shape[-1])},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state; one that `check` refuses leaves the worker as it is."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]

    def check(self, state: dict[str, Any]) -> None:
        """Refuse a state of something else.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is not one of this training.
        """
        from cwerm.algorithms.reweighting.meta_training import check_shapes

        own = self.model.state_dict()
        shapes = {name: tensor.shape for name, tensor in state["model"].items()}
        if shapes != {name: tensor.shape for name, tensor in own.items()}:
            raise ValueError("of another model")
        trial = make_optimizer(self.model, self.job)
        trial.load_state_dict(state["optimizer"])
        check_shapes(trial)
        epochs = [epoch["epoch"] for epoch in state["history"]]
        if epochs != [*range(len(epochs))] or len(epochs) > self.job.train.epochs:
            raise ValueError("of other epochs")
        json.dumps(state["history"])
        if {"mean", "std", "image_size"} != state["input"].keys():
            raise ValueError("without how images became its input")

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """One pass over the data, then the evaluation; returns the same metrics on every rank."""
        import torch

        section = self.job.train
        torch.manual_seed(hash((self.job.seed, epoch, self.rank)))  # dropout and its like
        seed, turns = self.job.seed, self.samples_per_epoch
        batches = erm.epoch_batches(
            turns, section.batch_size, seed, epoch, self.world_size, self.rank
        )
        sample_of = erm.samples_of_turns(len(self.labels), turns, seed, epoch)
        offsets, flips = erm.augmentation_draws(turns, seed, epoch, section.crop_padding)
        if not section.flip:
            flips[:] = False
        total_steps = len(batches) * section.epochs
        global_sizes = erm.batch_sizes(turns, section.batch_size)
        self.model.train()
        # loss, correct, seen: summed on the device, so that no step waits for a copy
        sums = torch.zeros(3, device=self.device, dtype=torch.float64)
        started = time.perf_counter()
        for step, batch in enumerate(batches):
            lr = erm.cosine_lr(epoch * len(batches) + step, total_steps, section.lr)
            self.optimizer.param_groups[0]["lr"] = lr
            rows = torch.from_numpy(sample_of[batch]).to(self.device)
            labels = self.labels[rows]
            images = erm.crop_and_flip(
                self.images[rows],
                torch.from_numpy(offsets[batch]).to(self.device),
                torch.from_numpy(flips[batch]).to(self.device),
                section.crop_padding,
            )
            logits = self.parallel(self.normalise(images))
            weights = self.weights[rows]
            if section.loss == "small_loss":
                weights = weights * self._small_loss_factors(
                    logits, labels, global_sizes[step], epoch
                )
            loss = erm.weighted_loss(
                logits,
                labels,
                weights,
                int(global_sizes[step]),
                self.world_size,
                section.focal_gamma if section.loss == "focal" else 0.0,
                section.gce_q if section.loss == "gce" else 0.0,
            )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            share = loss.detach() * int(global_sizes[step]) / self.world_size
            correct = (logits.detach().argmax(1) == labels).sum()
            sums += torch.stack([share.double(), correct.double(), sums.new_tensor(len(rows))])
        self._sum_over_ranks(sums)
        seconds = time.perf_counter() - started
        loss_sum, correct_sum, seen = sums.tolist()
        if not math.isfinite(loss_sum):
            raise UserError(
                f"train.lr: the training loss is {loss_sum} in epoch {epoch + 1}; lower train.lr"
            )
        self._average_running_statistics()
        metrics = {
            "epoch": epoch,
            "workers": self.world_size,
            "train_loss": loss_sum / seen,
            "train_accuracy": correct_sum / seen,
            "lr": lr,
            "seconds": seconds,
            "images_per_second": seen / seconds,
        }
        if self.reports(epoch):
            metrics |= {f"test_{name}": value for name, value in self.evaluate().items()}
        self.history.append(metrics)
        return metrics

    def _small_loss_factors(self, logits: Any, labels: Any, batch_size: int, epoch: int) -> Any:
        from torch.nn import functional

        from cwerm.algorithms.training.small_loss import left_out_share, small_loss_factors

        losses = functional.cross_entropy(logits.detach(), labels, reduction="none")
        share = left_out_share(epoch, self.job.train.wrong_share or 0.0)
        parts = erm.batch_parts(batch_size, self.world_size)
        start = sum(parts[: self.rank])
        return small_loss_factors(losses, share, batch_size, start, self._sum_over_ranks)

    def reports(self, epoch: int) -> bool:
        """Whether this epoch ends with an evaluation and a checkpoint."""
        done, section = epoch + 1, self.job.train
        return done % section.report_every == 0 or done == section.epochs

    def evaluate(self) -> dict[str, Any]:
        """Metrics on the test images, each rank doing its share."""
        import torch
        import torch.distributed as dist

        self.model.eval()
        logits = []
        with torch.inference_mode():
            for images in self.test_images.split(EVALUATION_BATCH):
                logits.append(self.model(self.normalise(images)))
        part = Evaluation.from_logits(torch.cat(logits).cpu(), self.test_labels.cpu())
        if self.world_size == 1:
            return part.summary()
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, part)
        total = parts[0]
        for other in parts[1:]:
            total = total.merge(other)
        return total.summary()

    def _sum_over_ranks(self, values: Any) -> None:
        import torch.distributed as dist

        if self.world_size > 1:
            dist.all_reduce(values)

    def _average_running_statistics(self) -> None:
        """Make the buffers of all ranks the same: each rank saw its own share of the images."""
        for buffer in self.model.buffers():
            if buffer.is_floating_point():
                self._sum_over_ranks(buffer)
                buffer /= self.world_size


class _Events:
    """TensorBoard events of rank 0, written locally and put into the run folder after each epoch."""

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
            self._writer.add_histogram("weights", worker.weights, epoch, max_bins=HISTOGRAM_BINS)
        self._writer.flush()
        for file in Path(self._folder.name).iterdir():
            self._storage.upload(file, f"{self._target}/{file.name}")
