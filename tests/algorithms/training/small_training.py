"""A small training on made-up images, without batch statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from cwerm.algorithms.training.batches import Normaliser, PixelBatches
from cwerm.algorithms.training.fit import fit
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe

SAMPLES, SIDE, CLASSES = 96, 8, 3


def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(54, CLASSES))


def normalised() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten()),
            nn.Linear(54, CLASSES),
        )


def batches(recipe: Recipe, ranks: Ranks | None = None) -> PixelBatches:
    generator = torch.Generator().manual_seed(1)
    shape = (SAMPLES, 3, SIDE, SIDE)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    weights = torch.rand(SAMPLES, generator=generator) * 2
    normalise = Normaliser.of(images.numpy())
    return PixelBatches(images, labels, weights, normalise, recipe, ranks or Ranks())


def assert_close(found: nn.Module | dict[str, Any], expected: nn.Module, **limits: float) -> None:
    state = found.state_dict() if isinstance(found, nn.Module) else found
    limits = limits or {"rtol": 1e-5, "atol": 1e-6}
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(state[name], value, **limits)


def _rank(rank: int, world_size: int, recipe: Recipe, folder: Path) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    ranks, net = Ranks(world_size, rank), model()
    fit(net, batches(recipe, ranks), recipe, ranks)
    torch.save(net.state_dict(), folder / f"{rank}.pt")
    dist.destroy_process_group()


def on_two_ranks(recipe: Recipe, folder: Path) -> list[dict[str, Any]]:
    """The model that each of two ranks ends with."""
    torch.multiprocessing.spawn(_rank, (2, recipe, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
