"""Who takes part in `meta_step.py`: our step, and the same step as others write it.

Each contestant is built from one start, steps on the pairs it is given, and lets `weight_optimizer`
and `optimizer` do the updates, so that what they are handed can be compared.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from cwerm.algorithms.gradients.meta_step import meta_step
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.reweighting.learning_to_reweight import reweight_step

LR = 0.1
Pair = tuple[Tensor, Tensor]


def losses_of(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each sample."""
    return functional.cross_entropy(outputs, labels, reduction="none")


class Contestant(ABC):
    """Copies of the model and weight net, with an optimizer each."""

    def __init__(self, model: nn.Module, weight_net: nn.Module, batch: Pair, meta: Pair) -> None:
        self.model, self.weight_net = copy.deepcopy(model), copy.deepcopy(weight_net)
        self.batch, self.meta = batch, meta
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), LR, momentum=0.9, weight_decay=5e-4, fused=True
        )
        self.weight_optimizer = torch.optim.Adam(self.weight_net.parameters(), 1e-3)

    @abstractmethod
    def step(self) -> None:
        """Update both."""

    def weigh(self, losses: Tensor) -> Tensor:
        """V of the losses, of which it sees only the values."""
        return self.weight_net(losses.detach()[:, None])

    def update(self, meta_loss: Tensor) -> None:
        """Both updates after the meta loss, with a second forward of the batch, as usual."""
        parameters = list(self.weight_net.parameters())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(meta_loss, parameters), strict=True
        ):
            parameter.grad = gradient
        self.weight_optimizer.step()
        losses = losses_of(self.model(self.batch[0]), self.batch[1])
        with torch.no_grad():
            weights = self.weigh(losses)
        self.optimizer.zero_grad()
        (weights * losses).mean().backward()
        self.optimizer.step()


class Plain(Contestant):
    """A step of SGD on the mean loss."""

    def step(self) -> None:
        self.optimizer.zero_grad()
        functional.cross_entropy(self.model(self.batch[0]), self.batch[1]).backward()
        self.optimizer.step()


class Ours(Contestant):
    """`meta_step` with options."""

    options = StepOptions()

    def step(self) -> None:
        meta_step(
            self.model, self.weight_net, self.batch, self.meta,
            self.optimizer, self.weight_optimizer, LR, options=self.options,
        )  # fmt: skip


class EveryFifth(Ours):
    """V moves in every fifth step."""

    count = 0

    def step(self) -> None:
        meta = None if self.count % 5 else self.meta
        self.count += 1
        meta_step(
            self.model, self.weight_net, self.batch, meta, self.optimizer, self.weight_optimizer, LR
        )


class LearningToReweight(Contestant):
    """`reweight_step`, another method: no weight net."""

    def step(self) -> None:
        reweight_step(self.model, self.batch, self.meta, self.optimizer)


class DoubleBackward(Contestant):
    """As the authors of Meta-Weight-Net write it: differentiate through the virtual step."""

    def step(self) -> None:
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        names, parameters = zip(*self.model.named_parameters(), strict=True)
        losses = losses_of(functional_call(self.model, buffers, (self.batch[0],)), self.batch[1])
        loss = (self.weigh(losses) * losses).mean()
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        theta = {n: p - LR * g for n, p, g in zip(names, parameters, gradients, strict=True)}
        outputs = functional_call(self.model, {**theta, **buffers}, (self.meta[0],))
        self.update(functional.cross_entropy(outputs, self.meta[1]))


class Higher(Contestant):
    """The library `higher`."""

    def step(self) -> None:
        higher = import_module("higher")

        inner = torch.optim.SGD(self.model.parameters(), LR)
        with higher.innerloop_ctx(self.model, inner, copy_initial_weights=False) as (net, sgd):
            losses = losses_of(net(self.batch[0]), self.batch[1])
            sgd.step((self.weigh(losses) * losses).mean())
            meta_loss = functional.cross_entropy(net(self.meta[0]), self.meta[1])
            self.update(meta_loss)


class TorchOpt(Contestant):
    """The library `torchopt`."""

    def step(self) -> None:
        torchopt = import_module("torchopt")

        sgd = torchopt.MetaSGD(self.model, lr=LR)
        start = torchopt.extract_state_dict(self.model, by="reference")
        buffers = torchopt.extract_state_dict(self.model, by="copy").buffers
        losses = losses_of(self.model(self.batch[0]), self.batch[1])
        sgd.step((self.weigh(losses) * losses).mean())
        meta_loss = functional.cross_entropy(self.model(self.meta[0]), self.meta[1])
        torchopt.recover_state_dict(self.model, start._replace(buffers=buffers))
        self.update(meta_loss)


class Betty(Contestant):
    """The library `betty-ml`, its default: central differences at theta after the real update."""

    def __init__(self, model: nn.Module, weight_net: nn.Module, batch: Pair, meta: Pair) -> None:
        super().__init__(model, weight_net, batch, meta)
        configs, engine = import_module("betty.configs"), import_module("betty.engine")
        problem: Any = import_module("betty.problems").ImplicitProblem

        class Inner(problem):
            def training_step(self, pair: Pair) -> Tensor:
                losses = losses_of(self.module(pair[0]), pair[1])
                return (self.outer(losses.detach()[:, None]) * losses).mean()

        class Outer(problem):
            def training_step(self, pair: Pair) -> Tensor:
                return functional.cross_entropy(self.inner(pair[0]), pair[1])

        outer = Outer(
            "outer", config=configs.Config(), module=self.weight_net, optimizer=self.weight_optimizer,
            train_data_loader=[self.meta],
        )  # fmt: skip
        inner = Inner(
            "inner", config=configs.Config(type="darts", unroll_steps=1), module=self.model,
            optimizer=self.optimizer, train_data_loader=[self.batch],
        )  # fmt: skip
        self.engine = engine.Engine(
            problems=[outer, inner],
            config=configs.EngineConfig(),
            dependencies={"u2l": {outer: [inner]}, "l2u": {inner: [outer]}},
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.engine.train()
        self.weight_optimizer = outer.optimizer

    def step(self) -> None:
        self.engine.global_step += 1
        self.engine.train_step()


CONTESTANTS: dict[str, type[Contestant]] = {
    "plain SGD": Plain,
    "ours": Ours,
    "double backward": DoubleBackward,
    "higher": Higher,
    "torchopt": TorchOpt,
    "~ betty-ml": Betty,
    "~ ours, every 5th": EveryFifth,
    "l2r (ours)": LearningToReweight,
}
