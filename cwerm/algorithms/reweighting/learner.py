"""The loop of `LearningToReweight` and `MetaWeightNet` on one device, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from cwerm.algorithms.gradients.given_model import TrainModes, check_trainable, unwrapped
from cwerm.algorithms.inputs import Given
from cwerm.algorithms.reweighting.feature_head import feature_head
from cwerm.algorithms.reweighting.meta_data import like, prepare
from cwerm.algorithms.reweighting.meta_training import State, Training
from cwerm.algorithms.reweighting.settings import Settings
from cwerm.algorithms.torch_state import float32_defaults, plain_torch

__all__ = ["Learner", "OnEpoch"]

OnEpoch = Callable[[int, Callable[[], State]], object]
AnyTraining = TypeVar("AnyTraining", bound=Training)


class Learner(Settings):
    """What both are: their settings, and after `fit` a trained classifier and its record."""

    classes_: np.ndarray
    history_: list[dict[str, float]]
    fallbacks_: list[str]
    losses_: Any

    def _train(
        self,
        make: Callable[..., AnyTraining],
        arrays: tuple[Given, Given, Given, Given],
        on_epoch: OnEpoch | None,
        state: State | None,
        **further: Any,
    ) -> AnyTraining:
        """All epochs of one `fit`, by the training that is made of settings, data and classifier."""
        device, classifier, modes = self.device, self.given_classifier, None
        # What draws from the global generators (dropout, fresh layers) is seeded and leaks nothing.
        with plain_torch(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            try:
                if classifier is not None:
                    classifier = unwrapped(classifier).to(device)
                    modes = TrainModes(classifier)
                    with modes.evaluating():
                        data, meta, self.classes_ = prepare(*arrays, classifier, None, device)
                    check_trainable(classifier)
                    torch.manual_seed(self.seed)
                else:
                    data, meta, self.classes_ = prepare(*arrays, None, self.num_classes, device)
                    torch.manual_seed(self.seed)
                    with float32_defaults():
                        outputs = self.num_classes or len(self.classes_)
                        classifier = feature_head(data.inputs, outputs)
                training = make(self, data, meta, classifier, **further)
                if state is not None:
                    training.resume(state)
                while training.epoch < training.epochs:
                    training.train_epoch()
                    if on_epoch is not None:
                        on_epoch(training.epoch - 1, training.state)
                losses = training.losses()
            finally:
                if modes is not None:
                    modes.restore()
        given = self.given_classifier
        self.classifier: nn.Module = training.classifier if given is None else given
        self.history_, self.fallbacks_ = training.history, sorted(training.fallbacks)
        self.losses_ = like(arrays[0], losses)
        return training
