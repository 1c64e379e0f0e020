"""Two processes with parts of unequal size take the same meta step as one with the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from meta_reference import images, mlp
from torch import Tensor

from cwerm.algorithms.gradients.meta_step import meta_step
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.reweighting.learning_to_reweight import reweight_step
from cwerm.algorithms.reweighting.meta_data import LabelledData
from cwerm.algorithms.reweighting.metaweight import MetaWeightNet, WeightNetTraining
from cwerm.algorithms.reweighting.weight_net import WeightNet

CUTS = ((slice(0, 9), slice(0, 2)), (slice(9, 14), slice(2, 10)))
WHOLE = (slice(None), slice(None))


class _MeanOverRanks:
    """What a caller injects; it counts, too."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, tensor: Tensor) -> None:
        self.sizes.append(tensor.numel())
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()


def _train(method: str, rows: tuple[slice, slice], options: StepOptions) -> list[Tensor]:
    """Three steps; all parameters, and the last weights."""
    torch.manual_seed(0)
    model, weight_net = mlp(), WeightNet(2)
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)
    adam = torch.optim.Adam(weight_net.parameters(), 1e-3)
    extra = torch.linspace(0, 1, 14)[:, None]
    for seed in range(3):
        batch = tuple(tensor[rows[0]] for tensor in images(14, seed, torch.float32))
        meta_batch = tuple(tensor[rows[1]] for tensor in images(10, seed + 9, torch.float32))
        if method == "l2r":
            step = reweight_step(model, batch, meta_batch, sgd, options)
        else:
            step = meta_step(
                model, weight_net, batch, meta_batch, sgd, adam, 0.1,
                extra=extra[rows[0]], options=options,
            )  # fmt: skip
    return [*model.parameters(), *weight_net.parameters(), step.weights]


def _rank(rank: int, folder: str, method: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    mean = _MeanOverRanks()
    options = StepOptions(all_reduce_mean=mean)
    tensors = [t.detach() for t in _train(method, CUTS[rank], options)]
    torch.save((tensors, mean.sizes), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("method", ["weight net", pytest.param("l2r", marks=pytest.mark.slow)])
def test_two_processes_equal_one(tmp_path: Path, method: str) -> None:
    torch.set_num_threads(1)
    mp.spawn(_rank, (str(tmp_path), method), nprocs=2)
    (first, sizes), (second, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    expected = _train(method, WHOLE, StepOptions())
    for a, b, whole in zip(first[:-1], second[:-1], expected[:-1], strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, whole.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        torch.cat([first[-1], second[-1]]), expected[-1].detach(), rtol=1e-5, atol=1e-6
    )
    gradient = sum(p.numel() for p in mlp().parameters()) + 1
    small = sum(p.numel() for p in WeightNet(2).parameters()) + 1
    per_step = [gradient, 2, gradient] if method == "l2r" else [gradient, gradient, small, gradient]
    assert sizes == per_step * 3


def test_all_ranks_keep_one_order_though_their_parts_are_augmented() -> None:
    """8 ranks share 100 samples unequally, so their augmentation draws differ in number."""
    orders = []
    for rank in range(8):
        options = StepOptions(world_size=8, rank=rank, all_reduce_mean=lambda values: None)
        training = training_of(options)
        for _ in range(2):
            training.train_epoch()
        orders.append(torch.cat([rows for rows, _ in training._positions()]))
    assert all(torch.equal(order, orders[0]) for order in orders)


def training_of(options: StepOptions) -> WeightNetTraining:
    inputs, labels = images(400, 0, torch.float32)
    meta = images(20, 1, torch.float32)
    net = MetaWeightNet(epochs=3, batch_size=100, augment=flipped, options=options)
    data = LabelledData(inputs, labels), LabelledData(*meta)
    return WeightNetTraining(net, *data, mlp(), None, WeightNet, net.weight_lr, net.meta_every)


def flipped(inputs: Tensor, generator: torch.Generator) -> Tensor:
    return inputs * (torch.rand(len(inputs), generator=generator) < 0.5).view(-1, 1, 1, 1)
