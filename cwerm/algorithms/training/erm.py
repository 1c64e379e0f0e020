"""Weighted empirical risk minimisation: what one process or many need to train the same model.

The order of samples, the augmentation and the loss depend on the seed and the epoch, not on the
number of ranks.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

__all__ = [
    "augmentation_draws",
    "batch_parts",
    "batch_sizes",
    "check_parts",
    "cosine_lr",
    "crop_and_flip",
    "epoch_batches",
    "generator_of",
    "samples_of_turns",
    "weighted_loss",
]

# Streams of one seed and epoch, so that order and each kind of augmentation are independent.
ORDER, AUGMENTATION, REPETITION, RESIZED_CROP, POLICY, MIXING = range(6)


def generator_of(seed: int, epoch: int, stream: int, step: int = 0) -> np.random.Generator:
    """What draws one thing of an epoch, or of a step of it."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, step, 0, stream]))


def batch_sizes(num_samples: int, batch_size: int) -> list[int]:
    """Sizes of an epoch's ceil(n / batch_size) global batches, which differ by at most one."""
    num_batches = math.ceil(num_samples / batch_size)
    small, larger = divmod(num_samples, num_batches)
    return [small + 1] * larger + [small] * (num_batches - larger)


def batch_parts(batch_size: int, world_size: int) -> list[int]:
    """Sizes of the parts of a batch that the ranks train on, in the ranks' order."""
    ends = [batch_size * rank // world_size for rank in range(world_size + 1)]
    return [end - start for start, end in itertools.pairwise(ends)]


def check_parts(batch_size: int, world_size: int) -> None:
    """`ValueError` if a batch has fewer samples than there are ranks."""
    if batch_size < world_size:
        raise ValueError(
            f"a batch of {batch_size} samples cannot be split over {world_size} workers: "
            "use a larger batch size or fewer workers"
        )


def epoch_batches(
    num_samples: int, batch_size: int, seed: int, epoch: int, world_size: int = 1, rank: int = 0
) -> list[Int[np.ndarray, " positions"]]:
    """Positions of the samples of each batch that `rank` trains on in this epoch.

    A permutation of all samples, drawn from the seed and the epoch alone, is cut into the global
    batches of `batch_sizes`, and each of these into near-equal parts, one a rank. So every rank
    takes equally many steps, no sample is dropped or repeated, and the union of batch i over the
    ranks is the same for every world size. `ValueError` if a batch has fewer samples than there are
    ranks.
    """
    if num_samples < 1 or batch_size < 1:
        raise ValueError(
            f"{num_samples} samples in batches of {batch_size}: both must be at least 1"
        )
    sizes = batch_sizes(num_samples, batch_size)
    check_parts(sizes[-1], world_size)
    order = generator_of(seed, epoch, ORDER).permutation(num_samples)
    batches = np.split(order, np.cumsum(sizes)[:-1])
    return [b[len(b) * rank // world_size : len(b) * (rank + 1) // world_size] for b in batches]


def samples_of_turns(
    num_samples: int, turns: int, seed: int, epoch: int
) -> Int[np.ndarray, "{turns}"]:
    """The sample that each of an epoch's turns belongs to: every sample equally often, give or take one.

    With as many turns as samples, turn i is sample i. A coreset that trains for as many steps as the
    whole data set takes part in more turns; which samples get one more is drawn anew each epoch.
    """
    if turns == num_samples:
        return np.arange(num_samples)
    order = generator_of(seed, epoch, REPETITION).permutation(num_samples)
    return np.resize(order, turns)


def weighted_loss(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"],
    weights: Float[Tensor, " batch"],
    global_batch_size: int,
    world_size: int = 1,
    focal_gamma: float = 0.0,
    gce_q: float = 0.0,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Sum of weight times loss, times `world_size` over `global_batch_size`.

    Instead of labels it takes probabilities of the classes, for the cross entropy alone.

    With p the probability of the label, the loss is the cross entropy -log p; with `focal_gamma` above 0
    the focal loss, (1 - p)^gamma times it (Lin et al., "Focal loss", ICCV 2017); with `gce_q` above 0 the
    generalised cross entropy, (1 - p^q) / q (Zhang and Sabuncu, NeurIPS 2018), whose gradient is p^q times
    that of the cross entropy: labels that the model finds improbable, as wrong ones are, pull less.
    `label_smoothing`, of the cross entropy alone, is the share that is spread evenly over all classes.

    The mean of its gradients over the ranks, which is what DDP takes, is the gradient of the
    weighted mean over the global batch, also where ranks hold unequal parts. Weights should have
    mean 1 over the data set.
    """
    losses = functional.cross_entropy(
        logits, labels, reduction="none", label_smoothing=label_smoothing
    )
    if focal_gamma > 0:
        losses = (1 - (-losses).exp()) ** focal_gamma * losses
    elif gce_q > 0:
        losses = -torch.expm1(-gce_q * losses) / gce_q
    return weights @ losses * (world_size / global_batch_size)


def cosine_lr(step: int, total_steps: int, base_lr: float) -> float:
    """The learning rate of `step` (from 0): half a cosine from `base_lr` to 0."""
    return base_lr * 0.5 * (1 + math.cos(math.pi * step / total_steps))


def augmentation_draws(
    num_samples: int, seed: int, epoch: int, padding: int
) -> tuple[Int[np.ndarray, "samples 2"], Bool[np.ndarray, " samples"]]:
    """Each sample's crop offset (row, column), uniform in 0 to 2 * padding, and whether to flip."""
    generator = generator_of(seed, epoch, AUGMENTATION)
    offsets = generator.integers(0, 2 * padding, (num_samples, 2), endpoint=True)
    return offsets, generator.random(num_samples) < 0.5


def crop_and_flip(
    images: Shaped[Tensor, "batch channels height width"],
    offsets: Int[np.ndarray, "batch 2"] | Int[Tensor, "batch 2"],
    flips: Bool[np.ndarray, " batch"] | Bool[Tensor, " batch"],
    padding: int,
) -> Shaped[Tensor, "batch channels height width"]:
    """Pad each image by zeros, crop it back to its size at its offset, mirror it where `flips`."""
    height, width = images.shape[2:]
    rows, columns = torch.as_tensor(offsets, device=images.device).unbind(1)
    padded = functional.pad(images, [padding] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view, all crops of all images
    crops = windows[torch.arange(len(images), device=images.device), :, rows, columns]
    mirrored = torch.as_tensor(flips, device=images.device)[:, None, None, None]
    return torch.where(mirrored, crops.flip(3), crops)
