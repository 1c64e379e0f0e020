"""What Meta-Weight-Net and learning to reweight have in common: a classifier learned step by step, from
clean samples, beside the weights."""

from __future__ import annotations

import copy
import itertools
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from cwerm.methods.reweighting import Learned, Reweighting
from cwerm.methods.samples import Batch, Run, Samples
from cwerm.values import Count, Rate, Text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cwerm.algorithms.labels.judgement import Judgement
    from cwerm.algorithms.reweighting.metaweight import LearningToReweight, MetaWeightNet

CROP_SHARE = 8  # of the image's side, padded for random crops: 4 pixels of 32
EVALUATION_BATCH = 500

# What the authors' code runs, but for its mistakes (docs/method.md): ResNet32 on the images, V at 1e-5.
PAPER = {
    "input": "images",
    "model": "resnet32",
    "epochs": 120,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "augment": True,
    "average_last": 1,
}
# Without effect on features.
OF_IMAGES = ("model", "image_size", "augment")


class LearnedStepwise(Learned):
    """A classifier, and where there is one, the weight net V of its loss."""

    def __init__(self, classifier: nn.Module, weight_net: nn.Module | None, device: Any) -> None:
        self.classifier, self.weight_net, self.device = classifier, weight_net, device
        self.found = {}

    def judge(self, batch: Batch) -> Judgement | None:
        """V of the loss, and of the agreement where it was learned with that; nothing without V."""
        import torch

        from cwerm.algorithms.labels.judgement import Judgement
        from cwerm.algorithms.reweighting.weight_net import net_inputs

        if self.weight_net is None:
            return None
        given = None if batch.agreement is None else torch.from_numpy(batch.agreement)
        with torch.inference_mode():
            columns = net_inputs(self._losses(batch), given).to(self.device)
            return Judgement(self.weight_net(columns).cpu().numpy())

    def _losses(self, batch: Batch) -> Tensor:
        import torch
        from torch.nn import functional

        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
        parts = zip(inputs.split(EVALUATION_BATCH), targets.split(EVALUATION_BATCH), strict=True)
        losses = [
            functional.cross_entropy(
                self.classifier(part.to(self.device)).cpu(), wanted, reduction="none"
            )
            for part, wanted in parts
        ]
        return torch.cat(losses)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Those of the classifier and of V."""
        nets = {"classifier": self.classifier, "weight_net": self.weight_net}
        return {name: dict(net.state_dict()) for name, net in nets.items() if net is not None}


class Stepwise(Reweighting):
    """A classifier that learns on the coreset, and weights that lower its loss on the clean samples."""

    preset: Literal["fixed", "paper"] = "fixed"
    """Defaults of this section: ours, or what the paper's authors ran."""
    input: Literal["features", "images"] = "features"
    """Train an MLP head on the stored features, or ``model`` on the images."""
    model: Text = "resnet32"
    """timm classifier for ``input: images``."""
    image_size: Count | None = None
    """Side of the images for ``input: images``; as in ``train.image_size``."""
    epochs: Count | None = None
    """Passes over the coreset; where not given, as many as make 1,500 steps, at least 10."""
    batch_size: Count = 100
    """Coreset samples a step."""
    meta_batch_size: Count = 100
    """Meta samples a step."""
    lr: Rate = 0.01
    """Learning rate of the classifier."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the classifier's SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of the classifier's SGD."""
    augment: bool = False
    """Random crops and flips for ``input: images``."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the classifier computes in; ``bfloat16`` is faster on GPUs."""
    average_last: Count = 5
    """Final weights are the mean over this many last epochs."""

    needs_clean: ClassVar[bool] = True
    shares_steps: ClassVar[bool] = True
    paper: ClassVar[dict[str, Any]] = PAPER

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        """Keys that are not given take the preset's values."""
        if isinstance(values, dict) and values.get("preset") == "paper":
            return {**cls.paper, **values}
        return values

    def effective(self) -> Stepwise:
        """What is said of images counts for these alone, and the preset is in its keys."""
        idle = ("preset", *(() if self.input == "images" else OF_IMAGES))
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].default for name in idle})

    @property
    def reads(self) -> Literal["features", "images"]:
        """As the job says."""
        return self.input

    def num_epochs(self, samples: int) -> int:
        """As asked, or enough for the weight net, which moves once a step, to learn."""
        from cwerm.algorithms.reweighting.settings import usual_epochs

        return self.epochs or usual_epochs(samples, self.batch_size)

    @abstractmethod
    def learner(self, classifier: Any, known: dict[str, Any], run: Run) -> Any:
        """`MetaWeightNet` or `LearningToReweight`, with what both know and its own settings."""

    def learn(self, reference: Samples, clean: Samples | None, run: Run) -> LearnedStepwise:
        """Learn, going on from the last state that is of use."""
        from cwerm.algorithms.reweighting.meta_training import UnusableStateError

        assert clean, "the job was checked for them"
        arrays = (reference.inputs, reference.labels, clean.inputs, clean.labels)
        extra = {} if reference.agreement is None else {"extra": reference.agreement}
        for name, state in itertools.chain(run.states.load(), [("", None)]):
            learner = self._fresh(len(reference.labels), run)
            try:
                weights = learner.fit(
                    *arrays,
                    on_epoch=lambda epoch, state: _after_epoch(run, epoch + 1, state),
                    state=state,
                    **extra,
                )
            except UnusableStateError as error:
                assert name, "to begin anew needs no state"
                run.note(f"{name} does not fit ({error}), and counts as none")
                continue
            return _learned(learner, weights, run)
        raise AssertionError("beginning anew gives weights")

    def _fresh(self, samples: int, run: Run) -> MetaWeightNet | LearningToReweight:
        known = {
            **{
                name: getattr(self, name)
                for name in ("batch_size", "meta_batch_size", "lr", "momentum", "weight_decay")
            },
            "epochs": self.num_epochs(samples),
            "average_last": self.average_last,
            "seed": run.seed,
            "device": run.device,
            "augment": _crop_and_flip if self.augment and run.classifier is not None else None,
            "options": _in_precision(run.options, self.precision),
            "num_classes": run.num_classes,
        }
        return self.learner(copy.deepcopy(run.classifier), known, run)

    def restore(self, state: dict[str, dict[str, Tensor]], run: Run) -> LearnedStepwise:
        """Classifier and V with these parameters."""
        import torch

        from cwerm.algorithms.reweighting.feature_head import feature_head
        from cwerm.algorithms.reweighting.weight_net import WeightNet

        classifier, net = run.classifier, state["weight_net"]
        if classifier is None:
            dimensions = state["classifier"]["1.weight"].shape[1]
            classifier = feature_head(torch.zeros(2, dimensions), run.num_classes)
        classifier.load_state_dict(state["classifier"])
        hidden, inputs = net["hidden.weight"].shape
        weight_net = WeightNet(inputs, hidden)
        weight_net.load_state_dict(net)
        return LearnedStepwise(
            classifier.to(run.device).eval(), weight_net.to(run.device), run.device
        )


def _in_precision(options: Any, precision: str) -> Any:
    import torch

    from cwerm.algorithms.gradients.step_options import StepOptions

    autocast = torch.bfloat16 if precision == "bfloat16" else None
    return replace(options or StepOptions(), autocast=autocast)


def _after_epoch(run: Run, done: int, state: Any) -> None:
    run.on_epoch(done)
    run.states.save(state, done)


def _learned(learner: Any, weights: np.ndarray, run: Run) -> LearnedStepwise:
    weight_net = getattr(learner, "weight_net", None)
    learned = LearnedStepwise(learner.classifier, weight_net, run.device)
    learned.weights, learned.losses, learned.history = weights, learner.losses_, learner.history_
    return learned


def _crop_and_flip(inputs: Any, generator: Any) -> Any:
    import torch

    from cwerm.algorithms.training.erm import crop_and_flip

    padding = inputs.shape[-1] // CROP_SHARE
    offsets = torch.randint(0, 2 * padding + 1, (len(inputs), 2), generator=generator)
    flips = torch.rand(len(inputs), generator=generator) < 0.5
    if inputs.is_cuda:  # from other memory a copy waits for the device
        offsets, flips = offsets.pin_memory(), flips.pin_memory()
    offsets, flips = (drawn.to(inputs.device, non_blocking=True) for drawn in (offsets, flips))
    return crop_and_flip(inputs, offsets, flips, padding)
