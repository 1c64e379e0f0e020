"""Learning to reweight (Ren et al., 2018): weights straight from the meta-gradient, no weight net.

Each sample's weight starts at epsilon_i = 0, where the virtual step stands still, so theta' = theta.
The meta loss falls along epsilon_i at the rate lr * <grad L_i(theta), g> with g the meta gradient at
theta; the weight is the positive part of that rate, normalised in the batch (Eqs. 9 to 13, and
Algorithm 1). The inner products are those of `meta_step`, exact and without second-order autograd.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cwerm.algorithms.gradients.classifier_pass import Batch, MetaBatch
from cwerm.algorithms.gradients.given_model import as_batch
from cwerm.algorithms.gradients.head_pass import pass_of
from cwerm.algorithms.gradients.meta_step import MetaStep, apply_gradients
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.reweighting.meta_training import Pair, Training
from cwerm.algorithms.torch_state import plain_torch

__all__ = ["ReweightTraining", "reweight_step"]


def reweight_step(
    model: nn.Module,
    batch: Batch,
    meta_batch: MetaBatch,
    optimizer: Optimizer,
    options: StepOptions | None = None,
) -> MetaStep:
    """Take one step of learning to reweight: weigh the batch, then move the classifier.

    The weights have mean 1 over the batch (in the paper sum 1, with a summed loss: the same step),
    or are all 0 if no sample helps the meta batch. `optimizer` holds the parameters of `model`.
    """
    options = options or StepOptions()
    with plain_torch():
        train = as_batch(batch, model, "batch", options.checked)
        forward = pass_of(model, train, options)
        direction, meta_loss, meta_logits = forward.meta_direction(
            list(forward.trained.values()),
            as_batch(meta_batch, model, "meta batch", options.checked),
        )
        positive = forward.slopes(direction).clamp(min=0)
        (mean,) = options.mean_over_ranks([positive.mean()], len(positive))
        weights = torch.where(mean > 0, positive / mean, positive)

        trained = list(forward.trained.values())
        apply_gradients(optimizer, trained, forward.gradient(lambda _: weights, trained, last=True))
    return MetaStep(
        forward.losses, forward.logits, weights, meta_loss, meta_logits, forward.fallback
    )


class ReweightTraining(Training):
    """Weights are those of each step of learning to reweight."""

    def step(self, batch: Pair, meta_batch: Pair, positions: Tensor) -> MetaStep:
        """One step of learning to reweight."""
        step = reweight_step(self.classifier, batch, meta_batch, self.optimizer, self.options)
        self.step_weights[positions] = step.weights.float()
        return step

    def train_epoch(self) -> None:
        """Late in the run, add up the weights of the epoch's steps."""
        averaging = self.averaging
        self.step_weights = torch.zeros_like(self.weight_sum)
        super().train_epoch()
        if averaging:
            self.weight_sum += self.settings.options.gather(self.step_weights).sum(0)
