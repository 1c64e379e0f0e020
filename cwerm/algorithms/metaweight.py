"""Meta-Weight-Net on a coreset: a classifier and the weight net V learn together.

Each step is `meta_step` (see `weight_net`); this module is the loop around it on one device. The
final weight of a sample is the mean over the last epochs' ends of V(L_i), with L_i from the
classifier in eval mode on the sample itself, not augmented.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from cwerm.algorithms.meta_data import Array, feature_head, like, prepare
from cwerm.algorithms.meta_training import Augment, Settings, State, Training
from cwerm.algorithms.weight_net import WeightNet, meta_gradient, meta_step

__all__ = ["MetaWeightNet", "WeightNet", "meta_gradient", "meta_step"]

OnEpoch = Callable[[int, Callable[[], State]], object]


class MetaWeightNet:
    """Learns one weight in (0, 1) a sample from a small trusted meta set.

    `classifier` is any torch module that maps a batch of inputs to logits and whose operations have
    forward-mode derivatives; it is trained in place. Without one, a head with one hidden layer is
    trained on feature vectors. The classifier learns by SGD (`lr`, `momentum`, `weight_decay`), its
    rate divided by 10 at each of `milestones`, which are fractions of the run; V, with `hidden`
    units, learns by Adam at `weight_lr`. Weights are averaged over the ends of the last
    `average_last` epochs (of all, if there are fewer). `augment` is called with inputs and a CPU
    generator on training and meta batches. Equal seeds give equal weights on one machine and thread
    count.

    After `fit`: `classifier`, `weight_net`, `losses_` (of each sample at the end) and `history_`,
    one dict an epoch: `epoch`, `train_loss`, `train_accuracy`, `meta_loss` and `meta_accuracy`
    (after the virtual steps), `weight_mean`, `weight_min`, `weight_max`, each over the epoch's
    steps.
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
    ) -> None:
        self.given_classifier = classifier
        self.settings = Settings(
            epochs=epochs,
            batch_size=batch_size,
            meta_batch_size=meta_batch_size,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            weight_lr=weight_lr,
            milestones=tuple(milestones),
            average_last=min(average_last, epochs),
            hidden=hidden,
            seed=seed,
            device=torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")),
            augment=augment,
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
        """Train, and return the weights float32[m]: an array for arrays, a tensor for tensors.

        `inputs` are feature vectors [m, d] or whatever the classifier takes (images [m, c, h, w]),
        used as float32; `labels` are integers from 0. `on_epoch(epoch, state)` is called after each
        epoch (from 0) with a function that returns what a later `fit` on the same data needs as
        `state` to go on as if never interrupted: nested dicts of tensors and numbers. `ValueError`
        for unusable data, or if the loss diverges.
        """
        settings = self.settings
        data, meta, num_classes = prepare(
            inputs, labels, meta_inputs, meta_labels, self.given_classifier, settings.device
        )
        # What draws from the global generators (dropout, fresh layers) is seeded and leaks nothing.
        with torch.random.fork_rng([settings.device] if settings.device.type == "cuda" else []):
            torch.manual_seed(settings.seed)
            classifier = self.given_classifier
            if classifier is None:
                classifier = feature_head(data.inputs, num_classes)
            training = Training(settings, data, meta, classifier)
            if state is not None:
                training.resume(state)
            while training.epoch < settings.epochs:
                training.train_epoch()
                if on_epoch is not None:
                    on_epoch(training.epoch - 1, training.state)
        self.classifier, self.weight_net = training.classifier, training.weight_net
        self.history_: list[dict[str, float]] = training.history
        self.losses_: Array = like(inputs, training.losses())
        return like(inputs, training.weight_sum / settings.average_last)
