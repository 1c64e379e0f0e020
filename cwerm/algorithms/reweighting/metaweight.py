"""Weights of a coreset learned together with a classifier, from a small trusted meta set.

Each step is `meta_step` or `reweight_step`; `Learner` is the loop around it on one device. The final
weight of a sample by `MetaWeightNet` is the mean over the last epochs' ends of V(L_i), with
L_i from the classifier in eval mode on the sample itself, not augmented.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cwerm.algorithms.gradients.meta_step import MetaStep, meta_gradient, meta_step
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.inputs import Given, as_array
from cwerm.algorithms.reweighting.learner import Learner, OnEpoch
from cwerm.algorithms.reweighting.learning_to_reweight import ReweightTraining
from cwerm.algorithms.reweighting.meta_data import LabelledData, extra_columns, like
from cwerm.algorithms.reweighting.meta_training import Pair, State, Training
from cwerm.algorithms.reweighting.settings import Settings
from cwerm.algorithms.reweighting.weight_net import WeightNet, net_inputs
from cwerm.algorithms.torch_state import float32_defaults, plain_torch

__all__ = [
    "LearningToReweight",
    "MetaWeightNet",
    "StepOptions",
    "WeightNet",
    "meta_gradient",
    "meta_step",
]


class WeightNetTraining(Training):
    """Weights are V of the loss and of the columns `extra`; `make_net` draws V for so many values.

    It learns by Adam at `lr`, in every so many steps.
    """

    def __init__(
        self,
        settings: Settings,
        data: LabelledData,
        meta: LabelledData,
        classifier: nn.Module,
        extra: Float[Tensor, "samples columns"] | None,
        make_net: Callable[[int], nn.Module],
        lr: float,
        every: int,
    ) -> None:
        super().__init__(settings, data, meta, classifier)
        self.extra, self.every = extra, every
        inputs = 1 if extra is None else 1 + extra.shape[1]
        with float32_defaults():
            self.weight_net: Any = make_net(inputs)
        self.weight_net.to(settings.device)
        self.weight_optimizer = torch.optim.Adam(self.weight_net.parameters(), lr)
        self.parts |= {"weight_net": self.weight_net, "weight_optimizer": self.weight_optimizer}

    def step(self, batch: Pair, meta_batch: Pair, positions: Tensor) -> MetaStep:
        """One step of Meta-Weight-Net, or between updates of V a weighted one."""
        return meta_step(
            self.classifier,
            self.weight_net,
            batch,
            None if self.steps_done % self.every else meta_batch,
            self.optimizer,
            self.weight_optimizer,
            self.optimizer.param_groups[0]["lr"],
            extra=None if self.extra is None else self.extra[positions],
            options=self.options,
        )

    def train_epoch(self) -> None:
        """Late in the run, add up the weights at the epoch's end."""
        averaging = self.averaging
        super().train_epoch()
        if averaging:
            with torch.no_grad():
                self.weight_sum += self.weight_net(net_inputs(self.losses(), self.extra))


class LearningToReweight(Learner):
    """Learning to reweight (Ren et al., 2018): a weight for each sample of each batch, no net.

    Constructed as `MetaWeightNet`, without what that has for V. Final weights are means over the steps of
    the last `average_last` epochs (of all, if there are fewer), scaled to mean 1.

    After `fit` it has what `MetaWeightNet` has, but for `weight_net`; `meta_loss` and `meta_accuracy` are
    those before each step.
    """

    def fit(
        self,
        inputs: Given,
        labels: Given,
        meta_inputs: Given,
        meta_labels: Given,
        on_epoch: OnEpoch | None = None,
        state: State | None = None,
    ) -> Any:
        """Train, and return the weights float32[m], of mean 1. See `MetaWeightNet.fit`."""
        training = self._train(
            ReweightTraining, (inputs, labels, meta_inputs, meta_labels), on_epoch, state
        )
        mean = training.weight_sum.mean()
        if mean == 0:
            raise ValueError(
                "every weight is 0, as no sample helps the meta set: check the meta set's labels, "
                "or use MetaWeightNet"
            )
        return like(inputs, training.weight_sum / mean)


@dataclass(kw_only=True, eq=False)
class MetaWeightNet(Learner):
    """Learns one weight in (0, 1) a sample from a small trusted meta set.

    `classifier` is any torch module that maps a batch of inputs to logits [batch, classes]; it is
    trained in place, in its own floating type, and layers that are in eval mode inside a model in train
    mode stay so. Without one, a head with one hidden layer is trained on feature vectors. `epochs` are as
    many as make 1,500 steps, at least 10, where not given. The classifier learns by SGD (`lr`,
    `momentum`, `weight_decay`), its rate divided by 10 at each of `milestones`, which are fractions of the
    run; V, with `hidden` units, learns by Adam at `weight_lr`, in every `meta_every`-th step. Weights are
    averaged over the ends of the last `average_last` epochs (of all, if there are fewer). `augment` is
    called with inputs and a CPU generator on training and meta batches. `options` says how a step
    computes, and on several ranks which share each takes.
    `num_classes` is for a head whose labels do not show all classes. Equal seeds give equal weights on
    one machine and thread count.

    After `fit`: `classifier`, `weight_net`, `classes_` (the class of each output), `fallbacks_` (why
    steps took a double backward, which is slower; as a rule empty), `losses_` (of each sample at the
    end) and `history_`, one dict an epoch: `epoch`, `train_loss`, `train_accuracy`, `meta_loss` and
    `meta_accuracy` (after the virtual steps; NaN in an epoch without one), `weight_mean`, `weight_min`,
    `weight_max`, each over the epoch's steps.
    """

    weight_lr: float = 1e-3
    hidden: int = 100
    meta_every: int = 1

    def __post_init__(self, classifier: nn.Module | None) -> None:
        super().__post_init__(classifier)
        self._check_positive("hidden", "meta_every")

    def fit(
        self,
        inputs: Given,
        labels: Given,
        meta_inputs: Given,
        meta_labels: Given,
        on_epoch: OnEpoch | None = None,
        state: State | None = None,
        extra: Given | None = None,
    ) -> Any:
        """Train, and return the weights float32[m]: an array for arrays, a tensor for tensors.

        `inputs` are feature vectors [m, d] or whatever the classifier takes (images [m, c, h, w]):
        arrays, lists, pandas objects or tensors. A classifier gets them in its own floating type,
        or as int64 where they are integers and it takes those, as an embedding does. `labels` are
        integers from 0 of any type, booleans or strings, and the meta set has each class that they
        have. Integers number the classifier's outputs; without a classifier and `num_classes`, and
        for other labels, the outputs stand for the classes that occur, ascending (`classes_`).
        `on_epoch(epoch, state)` is called after each epoch (from 0) with a function that returns what
        a later `fit` on the same data needs as `state` to go on as if never interrupted: nested dicts
        of tensors and numbers. `extra` [m, e] are further inputs of V beside the loss, best of about
        its scale. `ValueError` in one line for unusable data or models, or if the loss diverges.

        `torch.no_grad`, `inference_mode`, `autocast` (see `options`), default type and device around
        the call do not matter. Afterwards torch's generators and settings are as before, and the
        classifier's parameters and buffers are trained, its train and eval flags as they came.
        """
        with plain_torch():
            columns = self._columns(extra, labels, len(inputs))
        training = self._train(
            WeightNetTraining, (inputs, labels, meta_inputs, meta_labels), on_epoch, state,
            extra=columns, make_net=self._weight_net, lr=self.weight_lr, every=self.meta_every,
        )  # fmt: skip
        self.weight_net = training.weight_net
        return like(inputs, training.weight_sum / training.average_last)

    @torch.no_grad()
    def weigh(self, losses: Given, extra: Given | None = None) -> Any:
        """Return V of the losses [n] (and `extra` [n, e], if fitted with it) of any samples."""
        device = self.device
        columns = extra_columns(extra, len(losses), device)
        needed = self.weight_net.inputs - 1
        given = 0 if columns is None else columns.shape[1]
        if given != needed:
            raise ValueError(
                f"extra has {given} columns but V was fitted with {needed}: give the same"
            )
        values = torch.as_tensor(
            losses if isinstance(losses, torch.Tensor) else as_array(losses, "losses"),
            dtype=torch.float32, device=device,
        )  # fmt: skip
        return like(losses, self.weight_net(net_inputs(values, columns)))

    def _columns(self, extra: Given | None, labels: Given, size: int) -> Tensor | None:
        """What V knows of each sample in `fit` beside its loss."""
        del labels
        return extra_columns(extra, size, self.device)

    def _weight_net(self, inputs: int) -> Any:
        """V as it is drawn, of so many values a sample."""
        return WeightNet(inputs, self.hidden)
