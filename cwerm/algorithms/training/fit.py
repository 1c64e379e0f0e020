"""The training loop: weighted empirical risk minimisation (paper, Eq. 2), on any batches and ranks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cwerm.algorithms.networks.timm_models import channels_last
from cwerm.algorithms.torch_state import autocast, check_shapes
from cwerm.algorithms.training import erm
from cwerm.algorithms.training.augmentation.mixing import mixed
from cwerm.algorithms.training.batch_norm import counters_apart
from cwerm.algorithms.training.batches import Batch, Batches
from cwerm.algorithms.training.begun import Begun
from cwerm.algorithms.training.optimizing.averaging import MovingAverage
from cwerm.algorithms.training.optimizing.micro_batches import micro_batches
from cwerm.algorithms.training.optimizing.optimizer import load_optimizer, make_optimizer, set_lr
from cwerm.algorithms.training.optimizing.schedule import Schedule
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe
from cwerm.algorithms.training.small_loss import left_out_share, small_loss_factors
from cwerm.algorithms.training.targets import Beliefs

__all__ = ["DivergedError", "OnStep", "Training", "fit"]

# epoch, step in it, and the mean loss of this rank's part of the batch, as it is on the device
OnStep = Callable[[int, int, Tensor], object]
Metrics = dict[str, Any]


class DivergedError(ValueError):
    """The loss is no longer a finite number."""


def fit(
    model: nn.Module,
    batches: Batches,
    recipe: Recipe,
    ranks: Ranks | None = None,
    on_step: OnStep | None = None,
) -> list[Metrics]:
    """Train the model in place, on this rank; the metrics of each epoch, the same on every rank.

    Raises:
        DivergedError: the loss of an epoch is not finite.
        ValueError: the recipe does not fit the model or the number of steps.
    """
    training = Training(model, batches, recipe, ranks or Ranks())
    for epoch in range(training.schedule.epochs):
        training.history.append(training.epoch(epoch, on_step))
    return training.history


class Training:
    """A training in progress: the model, its optimizer, and the metrics of the epochs so far.

    With several ranks every parameter must have a part in the output.
    """

    def __init__(self, model: nn.Module, batches: Batches, recipe: Recipe, ranks: Ranks) -> None:
        self.batches, self.recipe, self.ranks = batches, recipe, ranks
        self.model = channels_last(model.to(ranks.device))
        self.schedule = Schedule.of(recipe, batches.steps)
        decay = recipe.ema
        self.average = None if decay is None else MovingAverage(self.model, decay)
        self._parallel = ranks.share_gradients(self.model)
        self.optimizer = make_optimizer(self.model, recipe, ranks.device)
        self.history: list[Metrics] = []
        self.begun: Begun | None = None
        """The epoch in progress, within `epoch` or as `restore` found it."""

    @property
    def judged(self) -> nn.Module:
        """The model that is evaluated and kept: with `ema` the average."""
        return self.model if self.average is None else self.average.model

    def epoch(self, epoch: int, on_step: OnStep | None = None) -> Metrics:
        """One pass over the data, or what is left of it; its metrics are for the caller to add to the
        history.
        """
        recipe, ranks = self.recipe, self.ranks
        self.model.train()
        steps, first = self.schedule.steps_in(epoch), epoch * self.batches.steps
        if self.begun is None:
            self.begun = Begun.anew(ranks)
        begun, started = self.begun, time.perf_counter() - self.begun.seconds
        batches = islice(self.batches.epoch(epoch, begun.step), steps - begun.step)
        with counters_apart(self.model, steps * recipe.accumulate) as begun.counters:
            for step, batch in enumerate(batches, begun.step):
                torch.manual_seed(hash((recipe.seed, epoch, step, ranks.rank)))  # dropout, for one
                lr = self.schedule.lr_at(first + step)
                loss = self.step(epoch, lr, mixed(batch, recipe, ranks, epoch, step), begun.sums)
                if self.average is not None:
                    self.average.update(first + step)
                begun.step, begun.seen = step + 1, begun.seen + len(batch.labels)
                begun.seconds = time.perf_counter() - started
                if on_step is not None:
                    on_step(epoch, step, loss)
        loss_sum, correct_sum, number = begun.totals(ranks).tolist()
        seconds, self.begun = time.perf_counter() - started, None
        if not math.isfinite(loss_sum):
            raise DivergedError(f"the training loss is {loss_sum} in epoch {epoch + 1}")
        ranks.average_buffers(self.model)
        if self.average is not None:
            self.average.settle(self.model, ranks)
        return {
            "epoch": epoch,
            "workers": ranks.world_size,
            "train_loss": loss_sum / number,
            "train_accuracy": correct_sum / number,
            "lr": lr,
            "seconds": seconds,
            "images_per_second": number / seconds,
        }

    def step(
        self, epoch: int, lr: float, batch: Batch, sums: Float[Tensor, "loss_and_correct"]
    ) -> Float[Tensor, ""]:
        """Learn from one batch at this rate; its loss on this rank. Nothing waits for the device.

        `sums` are those of the epoch so far, to which the batch's are added.
        """
        recipe = self.recipe
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        *earlier, last = micro_batches(batch, recipe.accumulate)
        losses = []
        with self.ranks.kept_apart(self._parallel):
            losses += [self._add_gradient(part, epoch, sums) for part in earlier]
        losses.append(self._add_gradient(last, epoch, sums))
        if recipe.clip_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_gradient_norm)
        self.optimizer.step()
        return torch.stack(losses).sum() if earlier else losses[0]

    def _add_gradient(
        self, batch: Batch, epoch: int, sums: Float[Tensor, "loss_and_correct"]
    ) -> Float[Tensor, ""]:
        """Add a batch's gradient to the parameters', and to `sums`; its loss."""
        ranks = self.ranks
        with autocast(ranks.device, self.recipe.precision):
            logits = self._parallel(batch.inputs).float()
        loss = self._loss(logits, batch, epoch)
        loss.backward()
        loss = loss.detach()
        share = loss * batch.size / ranks.world_size
        of_other = batch.mixed is not None and batch.mixed.share < 0.5
        labels = batch.mixed.labels if batch.mixed and of_other else batch.labels
        correct = (logits.detach().argmax(1) == labels).sum()
        sums += torch.stack([share.double(), correct.double()])
        return loss

    def state_within(self) -> dict[str, Any]:
        """As `state`, from a step's `on_step`, on all ranks at the same step.

        Running statistics are the mean of the ranks', as at an epoch's end.
        """
        assert self.begun is not None
        begun, state = self.begun, self.state()
        own = dict(self.model.named_buffers())
        means = dict(zip(own, self.ranks.averaged(own.values()), strict=True))
        kept = {name: mean for name, mean in means.items() if name in state["model"]}
        state["model"] = {**state["model"], **kept, **begun.counters}
        return {**state, "begun": begun.state(self.ranks)}

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on as if nothing had happened."""
        average = {} if self.average is None else {"average": self.average.model.state_dict()}
        return {
            **average,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state; one that `check` refuses leaves the training as it is."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.history = state["history"]
        begun = state.get("begun")
        self.begun = None if begun is None else Begun.restored(begun, self.ranks)

    def check(self, state: dict[str, Any]) -> None:
        """Refuse a state of something else.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is not one of this training.
        """
        models = {"model": self.model}
        if self.average is not None:
            models["average"] = self.average.model
        for name, model in models.items():
            shapes = {key: tensor.shape for key, tensor in state[name].items()}
            if shapes != {key: tensor.shape for key, tensor in model.state_dict().items()}:
                raise ValueError("of another model")
        trial = make_optimizer(self.model, self.recipe, self.ranks.device)
        load_optimizer(trial, state["optimizer"])
        check_shapes(trial)
        epochs = [epoch["epoch"] for epoch in state["history"]]
        if epochs != [*range(len(epochs))] or len(epochs) > self.schedule.epochs:
            raise ValueError("of other epochs")
        if "begun" in state:
            left = len(epochs) < self.schedule.epochs
            Begun.check(state["begun"], self.schedule.steps_in(len(epochs)) if left else 0)

    def _loss(
        self, logits: Float[Tensor, "part classes"], batch: Batch, epoch: int
    ) -> Float[Tensor, ""]:
        recipe, ranks, weights = self.recipe, self.ranks, batch.weights
        if recipe.loss == "small_loss":
            losses = functional.cross_entropy(logits.detach(), batch.labels, reduction="none")
            start = sum(erm.batch_parts(batch.size, ranks.world_size)[: ranks.rank])
            share = left_out_share(epoch, recipe.wrong_share)
            weights = weights * small_loss_factors(losses, share, batch.size, start, ranks.sum)

        def loss_of(labels: Tensor, weights: Tensor, beliefs: Beliefs | None) -> Tensor:
            return erm.weighted_loss(
                logits,
                labels if beliefs is None else beliefs.dense(logits.shape[1]),
                weights,
                batch.size,
                ranks.world_size,
                recipe.focal_gamma if recipe.loss == "focal" else 0.0,
                recipe.gce_q if recipe.loss == "gce" else 0.0,
                recipe.label_smoothing,
            )

        own = loss_of(batch.labels, weights, batch.beliefs)
        if batch.mixed is None:
            return own
        share, labels, weights, beliefs = batch.mixed
        return share * own + (1 - share) * loss_of(labels, weights, beliefs)
