from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from cwerm.algorithms.training.erm import weighted_loss
from cwerm.algorithms.training.small_loss import left_out_share, small_loss_factors


@pytest.mark.parametrize("left_out", [0.0, 0.1, 0.33, 0.5, 0.99])
def test_the_mean_over_the_batch_is_that_of_the_smallest_losses(left_out: float) -> None:
    """Against a plain sort."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(30, 4, generator=generator)
    labels = torch.randint(0, 4, (30,), generator=generator)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    factors = small_loss_factors(losses, left_out, 30)
    smallest = sorted(losses.tolist())[: max(1, 30 - round(left_out * 30))]
    found = weighted_loss(logits, labels, factors, 30)
    assert found.item() == pytest.approx(sum(smallest) / len(smallest))
    assert sorted(losses[factors > 0].tolist()) == smallest


def test_of_equal_losses_as_many_are_kept_as_asked() -> None:
    assert small_loss_factors(torch.ones(4), 0.5, 4).tolist() == [2, 2, 0, 0]


def test_the_share_rises_over_ten_epochs() -> None:
    shares = [left_out_share(epoch, 0.4) for epoch in range(13)]
    assert shares == pytest.approx([0.04 * min(epoch, 10) for epoch in range(13)])


LOSSES = torch.tensor([3.0, 1.0, 2.0, 9.0, 4.0])
CUTS = (slice(0, 3), slice(3, 5))


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    cut = CUTS[rank]
    factors = small_loss_factors(LOSSES[cut], 0.4, 5, cut.start, dist.all_reduce)
    torch.save(factors, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_leave_out_what_one_would(tmp_path: Path) -> None:
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert torch.cat(parts).tolist() == small_loss_factors(LOSSES, 0.4, 5).tolist()
    assert torch.cat(parts).count_nonzero() == 3
