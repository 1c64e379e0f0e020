"""A small network trained on what is made of the labels; and the losses of peers that change the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

import cwerm.algorithms.networks.models  # noqa: F401  registers small_cnn
from cwerm.algorithms.training import erm
from cwerm.algorithms.training.batches import Normaliser
from cwerm.algorithms.training.small_loss import left_out_share, small_loss_factors

__all__ = [
    "REGIMES",
    "Objective",
    "Recipe",
    "Trained",
    "accuracy",
    "early_learning",
    "forward_corrected",
    "generalised",
    "small_loss",
    "targets_and_weights",
    "train",
]

BATCH, RATE, MOMENTUM, DECAY = 128, 0.1, 0.9, 5e-4
GCE_POWER = 0.7  # Zhang and Sabuncu 2018
ELR_MEMORY, ELR_STRENGTH = 0.7, 3.0  # Liu et al. 2020, for CIFAR-10
EVALUATED = 1000

# from logits [batch, classes], the rows of the batch and the epoch to a loss a sample [batch]
Objective = Callable[[Tensor, Tensor, int], Tensor]


class Recipe(NamedTuple):
    """How long to train, and with which augmentation."""

    epochs: int
    padding: int
    flip: bool


REGIMES = {"short": Recipe(10, 2, True), "long": Recipe(20, 0, False)}


class Trained(NamedTuple):
    """A network, and how pixels become its input."""

    model: nn.Module
    normalise: Normaliser


def train(images: Tensor, classes: int, objective: Objective, recipe: Recipe, seed: int) -> Trained:
    """Train `small_cnn` on images uint8 [n, channels, side, side] by SGD with a cosine.

    Order, augmentation and normalisation are those of the train stage.
    """
    normalise = Normaliser.of(images.numpy())
    torch.manual_seed(seed)
    side, channels = images.shape[-1], images.shape[1]
    model = timm.create_model("small_cnn", num_classes=classes, img_size=side, in_chans=channels)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
    for epoch in range(recipe.epochs):
        batches = erm.epoch_batches(len(images), BATCH, seed, epoch)
        offsets, flips = erm.augmentation_draws(len(images), seed, epoch, recipe.padding)
        flips &= recipe.flip
        model.train()
        for step, batch in enumerate(batches):
            done = epoch * len(batches) + step
            lr = erm.cosine_lr(done, recipe.epochs * len(batches), RATE)
            optimizer.param_groups[0]["lr"] = lr
            rows = torch.from_numpy(batch)
            part = erm.crop_and_flip(images[rows], offsets[batch], flips[batch], recipe.padding)
            optimizer.zero_grad(set_to_none=True)
            objective(model(normalise(part)), rows, epoch).mean().backward()
            optimizer.step()
    return Trained(model, normalise)


def accuracy(trained: Trained, images: Tensor, labels: np.ndarray) -> float:
    """The share of images whose most probable class is the label."""
    model, normalise = trained
    model.eval()
    with torch.inference_mode():
        parts = images.split(EVALUATED)
        found = torch.cat([model(normalise(part)).argmax(1) for part in parts])
    return float((found.numpy() == labels).mean())


def targets_and_weights(targets: np.ndarray, weights: np.ndarray) -> Objective:
    """Cross entropy with probabilities [n, classes] as targets, times weights [n] of mean 1."""
    wanted = torch.from_numpy(np.asarray(targets, np.float32))
    scale = torch.from_numpy((weights / weights.mean()).astype(np.float32))

    def loss(logits: Tensor, rows: Tensor, epoch: int) -> Tensor:
        return scale[rows] * functional.cross_entropy(logits, wanted[rows], reduction="none")

    return loss


def generalised(labels: np.ndarray) -> Objective:
    """The generalised cross entropy."""
    given = torch.from_numpy(labels)

    def loss(logits: Tensor, rows: Tensor, epoch: int) -> Tensor:
        plain = functional.cross_entropy(logits, given[rows], reduction="none")
        return -torch.expm1(-GCE_POWER * plain) / GCE_POWER

    return loss


def small_loss(labels: np.ndarray, wrong_share: float) -> Objective:
    """The samples of largest loss in each batch are left out, as many as labels are wrong in truth."""
    given = torch.from_numpy(labels)

    def loss(logits: Tensor, rows: Tensor, epoch: int) -> Tensor:
        plain = functional.cross_entropy(logits, given[rows], reduction="none")
        share = left_out_share(epoch, wrong_share)
        return plain * small_loss_factors(plain.detach(), share, len(rows), 0, lambda _: None)

    return loss


def early_learning(labels: np.ndarray, classes: int) -> Objective:
    """Early-learning regularisation: keep to what was predicted before wrong labels were learned by heart.

    Liu et al., NeurIPS 2020: cross entropy + strength log(1 - <p, t>), t a moving average of p.
    """
    given = torch.from_numpy(labels)
    memory = torch.zeros(len(labels), classes)

    def loss(logits: Tensor, rows: Tensor, epoch: int) -> Tensor:
        predicted = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        now = predicted.detach() / predicted.detach().sum(1, keepdim=True)
        memory[rows] = ELR_MEMORY * memory[rows] + (1 - ELR_MEMORY) * now
        agreement = (memory[rows] * predicted).sum(1)
        plain = functional.cross_entropy(logits, given[rows], reduction="none")
        return plain + ELR_STRENGTH * (1 - agreement).log()

    return loss


def forward_corrected(labels: np.ndarray, transitions: np.ndarray) -> Objective:
    """Cross entropy of the given label under predictions passed through T (Patrini et al. 2017)."""
    given = torch.from_numpy(labels)
    passed = torch.from_numpy(transitions.astype(np.float32))

    def loss(logits: Tensor, rows: Tensor, epoch: int) -> Tensor:
        likely = logits.softmax(1) @ passed
        return -likely.gather(1, given[rows, None])[:, 0].clamp_min(1e-7).log()

    return loss
