"""Weights of a coreset learned together with a classifier, from a small trusted meta set.

Each step is `meta_step` or `reweight_step`; this module is the loop around it on one device. The
final weight of a sample by `MetaWeightNet` is the mean over the last epochs' ends of V(L_i), with
L_i from the classifier in eval mode on the sample itself, not augmented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from cwerm.algorithms.meta_data import Array, extra_columns, feature_head, like, prepare
from cwerm.algorithms.meta_step import meta_gradient, meta_step
from cwerm.algorithms.meta_training import (
    Augment,
    ReweightTraining,
    Settings,
    State,
    Training,
    WeightNetTraining,
)
from cwerm.algorithms.step_options import StepOptions
from cwerm.algorithms.weight_net import WeightNet, net_inputs

__all__ = [
    "LearningToReweight",
    "MetaWeightNet",
    "StepOptions",
    "WeightNet",
    "meta_gradient",
    "meta_step",
]

OnEpoch = Callable[[int, Callable[[], State]], object]


class LearningToReweight:
    """Learning to reweight (Ren et al., 2018): a weight for each sample of each batch, no net.

    `classifier` is any torch module that maps a batch of inputs to logits; it is trained in place.
    Without one, a head with one hidden layer is trained on feature vectors. The classifier learns
    by SGD (`lr`, `momentum`, `weight_decay`), its rate divided by 10 at each of `milestones`, which
    are fractions of the run. Final weights are means over the steps of the last `average_last`
    epochs (of all, if there are fewer), scaled to mean 1. `augment` is called with inputs and a CPU
    generator on training and meta batches. `options` says how a step computes, and on several ranks
    which share each takes. `num_classes` is for a head whose labels do not show all classes. Equal
    seeds give equal weights on one machine and thread count.

    After `fit`: `classifier`, `losses_` (of each sample at the end) and `history_`, one dict an
    epoch: `epoch`, `train_loss`, `train_accuracy`, `meta_loss` and `meta_accuracy` (before each
    step), `weight_mean`, `weight_min`, `weight_max`, each over the epoch's steps.
    """

    def __init__(
        self,
        classifier: nn.Module | None = None,
        *,
        epochs: int = 120,
        batch_size: int = 100,
        meta_batch_size: int = 100,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        milestones: tuple[float, ...] = (2 / 3, 5 / 6),
        average_last: int = 5,
        seed: int = 0,
        device: str | torch.device | None = None,
        augment: Augment | None = None,
        options: StepOptions | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.given_classifier = classifier
        self.settings = Settings(
            epochs=epochs,
            batch_size=batch_size,
            meta_batch_size=meta_batch_size,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            milestones=tuple(milestones),
            average_last=min(average_last, epochs),
            seed=seed,
            device=torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")),
            augment=augment,
            options=options or StepOptions(),
            num_classes=num_classes,
        )

    def fit(
        self,
        inputs: Array,
        labels: Array,
        meta_inputs: Array,
        meta_labels: Array,
        on_epoch: OnEpoch | None = None,
        state: State | None = None,
    ) -> Array:
        """Train, and return the weights float32[m], of mean 1. See `MetaWeightNet.fit`."""
        training = _run(
            ReweightTraining, self.settings, self.given_classifier,
            (inputs, labels, meta_inputs, meta_labels), on_epoch, state,
        )  # fmt: skip
        self.classifier, self.history_ = training.classifier, training.history
        self.losses_: Array = like(inputs, training.losses())
        mean = training.weight_sum.mean()
        if mean == 0:
            raise ValueError(
                "every weight is 0, as no sample helps the meta set: check the meta set's labels, "
                "or use MetaWeightNet"
            )
        return like(inputs, training.weight_sum / mean)


class MetaWeightNet:
    """Learns one weight in (0, 1) a sample from a small trusted meta set.

    `classifier` is any torch module that maps a batch of inputs to logits; it is trained in place.
    Without one, a head with one hidden layer is trained on feature vectors. The classifier learns
    by SGD (`lr`, `momentum`, `weight_decay`), its rate divided by 10 at each of `milestones`, which
    are fractions of the run; V, with `hidden` units, learns by Adam at `weight_lr`, in every
    `meta_every`-th step. Weights are averaged over the ends of the last `average_last` epochs (of
    all, if there are fewer). `augment` is called with inputs and a CPU generator on training and
    meta batches. `options` says how a step computes, and on several ranks which share each takes.
    `num_classes` is for a head whose labels do not show all classes. Equal seeds give equal weights on
    one machine and thread count.

    After `fit`: `classifier`, `weight_net`, `losses_` (of each sample at the end) and `history_`,
    one dict an epoch: `epoch`, `train_loss`, `train_accuracy`, `meta_loss` and `meta_accuracy`
    (after the virtual steps; NaN in an epoch without one), `weight_mean`, `weight_min`,
    `weight_max`, each over the epoch's steps.
    """

    def __init__(
        self,
        classifier: nn.Module | None = None,
        *,
        epochs: int = 120,
        batch_size: int = 100,
        meta_batch_size: int = 100,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        weight_lr: float = 1e-3,
        milestones: tuple[float, ...] = (2 / 3, 5 / 6),
        average_last: int = 5,
        hidden: int = 100,
        seed: int = 0,
        device: str | torch.device | None = None,
        augment: Augment | None = None,
        meta_every: int = 1,
        options: StepOptions | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.given_classifier = classifier
        self.settings = Settings(
            epochs=epochs,
            batch_size=batch_size,
            meta_batch_size=meta_batch_size,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            milestones=tuple(milestones),
            average_last=min(average_last, epochs),
            seed=seed,
            device=torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")),
            augment=augment,
            options=options or StepOptions(),
            num_classes=num_classes,
            weight_lr=weight_lr,
            hidden=hidden,
            meta_every=meta_every,
        )

    def fit(
        self,
        inputs: Array,
        labels: Array,
        meta_inputs: Array,
        meta_labels: Array,
        on_epoch: OnEpoch | None = None,
        state: State | None = None,
        extra: Array | None = None,
    ) -> Array:
        """Train, and return the weights float32[m]: an array for arrays, a tensor for tensors.

        `inputs` are feature vectors [m, d] or whatever the classifier takes (images [m, c, h, w]),
        used as float32; `labels` are integers from 0. `on_epoch(epoch, state)` is called after each
        epoch (from 0) with a function that returns what a later `fit` on the same data needs as
        `state` to go on as if never interrupted: nested dicts of tensors and numbers. `extra`
        [m, e] are further inputs of V beside the loss, best of about its scale. `ValueError` for
        unusable data, or if the loss diverges.
        """
        columns = extra_columns(extra, len(inputs), self.settings.device)
        training = _run(
            WeightNetTraining, self.settings, self.given_classifier,
            (inputs, labels, meta_inputs, meta_labels), on_epoch, state, extra=columns,
        )  # fmt: skip
        self.classifier, self.weight_net = training.classifier, training.weight_net
        self.history_: list[dict[str, float]] = training.history
        self.losses_: Array = like(inputs, training.losses())
        return like(inputs, training.weight_sum / self.settings.average_last)

    @torch.no_grad()
    def weigh(self, losses: Array, extra: Array | None = None) -> Array:
        """Return V of the losses [n] (and `extra` [n, e], if fitted with it) of any samples."""
        device = self.settings.device
        columns = extra_columns(extra, len(losses), device)
        needed = self.weight_net.hidden.in_features - 1
        given = 0 if columns is None else columns.shape[1]
        if given != needed:
            raise ValueError(
                f"extra has {given} columns but V was fitted with {needed}: give the same"
            )
        values = torch.as_tensor(losses, dtype=torch.float32, device=device)
        return like(losses, self.weight_net(net_inputs(values, columns)))


AnyTraining = TypeVar("AnyTraining", bound=Training)


def _run(
    make: Callable[..., AnyTraining],
    settings: Settings,
    classifier: nn.Module | None,
    arrays: tuple[Array, Array, Array, Array],
    on_epoch: OnEpoch | None,
    state: State | None,
    **further: Any,
) -> AnyTraining:
    """All epochs of one `fit`."""
    data, meta, num_classes = prepare(*arrays, classifier, settings.device)
    num_classes = max(num_classes, settings.num_classes or 0)
    # What draws from the global generators (dropout, fresh layers) is seeded and leaks nothing.
    with torch.random.fork_rng([settings.device] if settings.device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        if classifier is None:
            classifier = feature_head(data.inputs, num_classes)
        training = make(settings, data, meta, classifier, **further)
        if state is not None:
            training.resume(state)
        while training.epoch < settings.epochs:
            training.train_epoch()
            if on_epoch is not None:
                on_epoch(training.epoch - 1, training.state)
    return training
