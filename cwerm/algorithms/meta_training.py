"""The loop of `MetaWeightNet` over one device: batches, learning rate, records, resumable state."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cwerm.algorithms.meta_data import LabelledData
from cwerm.algorithms.weight_net import WeightNet, meta_step

State = dict[str, Any]
Augment = Callable[[Tensor, torch.Generator], Tensor]

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Settings:
    """What `MetaWeightNet` is constructed with, and explains."""

    epochs: int
    batch_size: int
    meta_batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    weight_lr: float
    milestones: tuple[float, ...]
    average_last: int
    hidden: int
    seed: int
    device: torch.device
    augment: Augment | None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "meta_batch_size", "average_last", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")


class Training:
    """One `fit`: everything that changes from step to step."""

    def __init__(
        self,
        settings: Settings,
        data: LabelledData,
        meta: LabelledData,
        classifier: nn.Module,
    ) -> None:
        self.settings, self.data, self.meta = settings, data, meta
        self.classifier = classifier.to(settings.device)
        self.weight_net = WeightNet(hidden=settings.hidden).to(settings.device)
        self.optimizer = torch.optim.SGD(
            [p for p in self.classifier.parameters() if p.requires_grad],
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.weight_optimizer = torch.optim.Adam(self.weight_net.parameters(), settings.weight_lr)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.weight_sum = torch.zeros(len(data.labels), device=settings.device)
        self.history: list[dict[str, float]] = []

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    def train_epoch(self) -> None:
        """Pass once over the data, record the epoch, and late in the run add up the weights."""
        lr = self.settings.lr * 0.1 ** sum(
            self.epoch / self.settings.epochs >= fraction for fraction in self.settings.milestones
        )
        self.optimizer.param_groups[0]["lr"] = lr
        self.classifier.train()
        steps = []
        for positions, meta_positions in self._positions():
            batch = self._batch(self.data, positions)
            meta_batch = self._batch(self.meta, meta_positions)
            step = meta_step(
                self.classifier,
                self.weight_net,
                batch,
                meta_batch,
                self.optimizer,
                self.weight_optimizer,
                lr,
            )
            hits = (step.logits.argmax(1) == batch[1]).sum()
            meta_accuracy = (step.meta_logits.argmax(1) == meta_batch[1]).float().mean()
            steps.append(
                torch.stack([
                    step.losses.sum(), hits, step.weights.sum(), step.meta_loss, meta_accuracy,
                    step.weights.min(), step.weights.max(),
                ])
            )  # fmt: skip
        self._record(torch.stack(steps), lr)
        if self.epoch > self.settings.epochs - self.settings.average_last:
            with torch.no_grad():
                self.weight_sum += self.weight_net(self.losses()[:, None])

    def _positions(self) -> list[tuple[Tensor, Tensor]]:
        """Near-equal batches of a permutation; a meta batch each, from permutations in a row."""
        size, meta_size = len(self.data.labels), len(self.meta.labels)
        num_steps = math.ceil(size / self.settings.batch_size)
        batches = torch.randperm(size, generator=self.generator).tensor_split(num_steps)
        meta_batch_size = min(self.settings.meta_batch_size, meta_size)
        rounds = math.ceil(num_steps * meta_batch_size / meta_size)
        order = torch.cat(
            [torch.randperm(meta_size, generator=self.generator) for _ in range(rounds)]
        )
        return list(zip(batches, order.split(meta_batch_size)[:num_steps], strict=True))

    def _batch(self, data: LabelledData, positions: Tensor) -> tuple[Tensor, Tensor]:
        positions = positions.to(self.settings.device)
        inputs = data.inputs[positions]
        if self.settings.augment is not None:
            inputs = self.settings.augment(inputs, self.generator)
        return inputs, data.labels[positions]

    def _record(self, steps: Float[Tensor, "steps 7"], lr: float) -> None:
        size = len(self.data.labels)
        loss, hits, weight = (steps[:, :3].sum(0) / size).tolist()
        meta_loss, meta_accuracy = steps[:, 3:5].mean(0).tolist()
        if not math.isfinite(loss + meta_loss):
            raise ValueError(
                f"the loss became NaN or infinite in epoch {self.epoch}: lower lr (it is {lr:g})"
            )
        record = {
            "epoch": self.epoch,
            "train_loss": loss,
            "train_accuracy": hits,
            "meta_loss": meta_loss,
            "meta_accuracy": meta_accuracy,
            "weight_mean": weight,
            "weight_min": steps[:, 5].min().item(),
            "weight_max": steps[:, 6].max().item(),
        }
        self.history.append(record)

    @torch.no_grad()
    def losses(self) -> Float[Tensor, " samples"]:
        """Loss of each sample in eval mode."""
        self.classifier.eval()
        losses = torch.cat([
            functional.cross_entropy(self.classifier(inputs), labels, reduction="none")
            for inputs, labels in zip(
                self.data.inputs.split(EVALUATION_BATCH),
                self.data.labels.split(EVALUATION_BATCH),
                strict=True,
            )
        ])  # fmt: skip
        if not losses.isfinite().all():
            raise ValueError(
                f"losses are NaN or infinite after epoch {self.epoch - 1}: "
                f"lower lr (it is {self.settings.lr:g})"
            )
        return losses

    def _parts(self) -> dict[str, Any]:
        return {
            "classifier": self.classifier,
            "weight_net": self.weight_net,
            "optimizer": self.optimizer,
            "weight_optimizer": self.weight_optimizer,
        }

    def state(self) -> State:
        """A copy of all that `resume` needs."""
        state: State = {name: part.state_dict() for name, part in self._parts().items()}
        state["weight_sum"] = self.weight_sum
        state["history"] = self.history
        state["generator"] = self.generator.get_state()
        state["rng"] = torch.get_rng_state()
        if self.settings.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.settings.device)
        return deepcopy(state)

    def resume(self, state: State) -> None:
        """Go on from `state`, which stays as it is."""
        state = deepcopy(state)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.weight_sum = state["weight_sum"].to(self.settings.device)
        self.history = state["history"]
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["rng"].cpu())
        if "cuda_rng" in state and self.settings.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.settings.device)
