"""The loop of meta-learned weights on one device: batches, learning rate, records, resumable state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cwerm.algorithms.gradients.given_model import TrainModes, check_logits
from cwerm.algorithms.gradients.meta_step import MetaStep
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.reweighting.meta_data import LabelledData
from cwerm.algorithms.reweighting.settings import Settings, usual_epochs
from cwerm.algorithms.torch_state import check_shapes
from cwerm.algorithms.training.batch_norm import counters_apart

State = dict[str, Any]
Pair = tuple[Tensor, Tensor]

EVALUATION_BATCH = 500


class UnusableStateError(Exception):
    """A state that a training can't go on from."""


class Training(ABC):
    """One `fit`: everything that changes from step to step, whatever gives the weights."""

    def __init__(
        self,
        settings: Settings,
        data: LabelledData,
        meta: LabelledData,
        classifier: nn.Module,
    ) -> None:
        self.settings = settings
        self.epochs = settings.epochs or usual_epochs(len(data.labels), settings.batch_size)
        self.average_last = min(settings.average_last, self.epochs)
        self.data, self.meta = data, meta
        self.classifier = classifier.to(settings.device)
        self.modes = TrainModes(self.classifier)
        self.fallbacks: set[str] = set()
        self.optimizer = torch.optim.SGD(
            [p for p in self.classifier.parameters() if p.requires_grad],
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.generator = torch.Generator(device="cpu").manual_seed(settings.seed)
        # apart from the order of samples, as ranks have parts of unequal size to augment
        self.augmentation = torch.Generator(device="cpu")
        self.weight_sum = torch.zeros(len(data.labels), dtype=torch.float32, device=settings.device)
        self.history: list[dict[str, float]] = []
        self.parts: dict[str, Any] = {"classifier": self.classifier, "optimizer": self.optimizer}

    @abstractmethod
    def step(self, batch: Pair, meta_batch: Pair, positions: Tensor) -> MetaStep:
        """Train on one batch, whose samples stand at `positions`."""

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def options(self) -> StepOptions:
        """Those of the next step: a GPU is asked whether things fit once, as each time would be a wait."""
        on_gpu = self.settings.device.type == "cuda"
        checked = on_gpu and self.steps_done > 0 and not self.fallbacks
        return replace(self.settings.options, checked=checked)

    @property
    def averaging(self) -> bool:
        """Whether weights of the epoch that follows count."""
        return self.epoch >= self.epochs - self.average_last

    def train_epoch(self) -> None:
        """Pass once over the data and record the epoch."""
        lr = self.settings.lr * 0.1 ** sum(
            self.epoch / self.epochs >= fraction for fraction in self.settings.milestones
        )
        self.optimizer.param_groups[0]["lr"] = lr
        self.modes.train()
        own = np.random.SeedSequence([self.settings.seed, self.epoch, self.settings.options.rank])
        self.augmentation.manual_seed(int(own.generate_state(1, np.uint64)[0] >> 1))
        steps, meta_steps = [], []
        pairs = self._positions()
        self.steps_done = self.epoch * len(pairs)
        with counters_apart(self.classifier, len(pairs)):
            for positions, meta_positions in pairs:
                positions = self._share(positions)
                batch = self._batch(self.data, positions)
                meta_batch = self._batch(self.meta, self._share(meta_positions))
                step = self.step(batch, meta_batch, positions)
                self.steps_done += 1
                if step.fallback is not None:
                    self.fallbacks.add(step.fallback)
                hits = (step.logits.argmax(1) == batch[1]).sum()
                weights = step.weights
                steps.append(
                    torch.stack(
                        [step.losses.sum(), hits, weights.sum(), weights.min(), weights.max()]
                    )
                )
                if step.meta_loss is not None and step.meta_logits is not None:
                    accuracy = (step.meta_logits.argmax(1) == meta_batch[1]).float().mean()
                    meta_steps.append(torch.stack([step.meta_loss, accuracy]))
        self._average_buffers()
        self._record(torch.stack(steps), meta_steps, lr)

    def _positions(self) -> list[tuple[Tensor, Tensor]]:
        """Near-equal batches of a permutation; a meta batch each, from permutations in a row.

        They go to the device once an epoch, so that no step waits for a copy.
        """
        size, meta_size = len(self.data.labels), len(self.meta.labels)
        num_steps = math.ceil(size / self.settings.batch_size)
        batches = self._order(size).to(self.settings.device).tensor_split(num_steps)
        meta_batch_size = min(self.settings.meta_batch_size, meta_size)
        rounds = math.ceil(num_steps * meta_batch_size / meta_size)
        order = torch.cat([self._order(meta_size) for _ in range(rounds)]).to(self.settings.device)
        return list(zip(batches, order.split(meta_batch_size)[:num_steps], strict=True))

    def _order(self, size: int) -> Tensor:
        return torch.randperm(size, generator=self.generator, device="cpu")

    def _share(self, positions: Tensor) -> Tensor:
        """This rank's part of a batch that all ranks work on."""
        return positions.tensor_split(self.settings.options.world_size)[self.settings.options.rank]

    def _average_buffers(self) -> None:
        """Give all ranks the same running statistics: each saw its own share of the batches."""
        for buffer in self.classifier.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self.settings.options.gather(buffer).mean(0))

    def _batch(self, data: LabelledData, positions: Tensor) -> tuple[Tensor, Tensor]:
        inputs = data.inputs[positions]
        if self.settings.augment is not None:
            inputs = self.settings.augment(inputs, self.augmentation)
        return inputs, data.labels[positions]

    def _record(self, steps: Float[Tensor, "steps 5"], meta_steps: list[Tensor], lr: float) -> None:
        every = self.settings.options.gather(steps)
        loss, hits, weight = (every[..., :3].sum((0, 1)) / len(self.data.labels)).tolist()
        meta_loss = meta_accuracy = float("nan")  # an epoch may be shorter than `meta_every`
        if meta_steps:
            mean = torch.stack(meta_steps).mean(0)
            meta_loss, meta_accuracy = self.settings.options.gather(mean).mean(0).tolist()
        if not math.isfinite(loss) or (meta_steps and not math.isfinite(meta_loss)):
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
            "weight_min": every[..., 3].min().item(),
            "weight_max": every[..., 4].max().item(),
        }
        self.history.append(record)

    @torch.no_grad()
    def losses(self) -> Float[Tensor, " samples"]:
        """Loss of each sample in eval mode; the ranks share the work."""
        size, device = len(self.data.labels), self.settings.device
        losses = torch.zeros(size, dtype=torch.float32, device=device)
        with self.modes.evaluating():
            for rows in self._share(torch.arange(size, device=device)).split(EVALUATION_BATCH):
                logits = check_logits(self.classifier(self.data.inputs[rows]), len(rows))
                targets = self.data.labels[rows]
                loss = functional.cross_entropy(logits, targets, reduction="none")
                losses[rows] = loss.float()
        losses = self.settings.options.gather(losses).sum(0)
        if not losses.isfinite().all():
            raise ValueError(
                f"losses are NaN or infinite after epoch {self.epoch - 1}: "
                f"lower lr (it is {self.settings.lr:g})"
            )
        return losses

    def state(self) -> State:
        """A copy of all that `resume` needs."""
        state: State = {name: part.state_dict() for name, part in self.parts.items()}
        state["weight_sum"] = self.weight_sum
        state["history"] = self.history
        state["generator"] = self.generator.get_state()
        state["rng"] = torch.get_rng_state()
        if self.settings.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.settings.device)
        return deepcopy(state)

    def resume(self, state: State) -> None:
        """Go on from `state`, which stays as it is.

        Raises:
            UnusableStateError: it is not one of such a training, which has now to be made anew.
        """
        try:
            self._resume(deepcopy(state))
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise UnusableStateError(f"{type(error).__name__}: {reason}") from error

    def _resume(self, state: State) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
            if isinstance(part, torch.optim.Optimizer):
                check_shapes(part)
        weight_sum, history = state["weight_sum"].to(self.settings.device), state["history"]
        if weight_sum.shape != self.weight_sum.shape or len(history) > self.epochs:
            raise ValueError("of other samples, or of more epochs")
        if not all(type(value) in (int, float) for epoch in history for value in epoch.values()):
            raise ValueError("its history is no numbers")
        self.weight_sum, self.history = weight_sum.to(self.weight_sum.dtype), history
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["rng"].cpu())
        if "cuda_rng" in state and self.settings.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.settings.device)
