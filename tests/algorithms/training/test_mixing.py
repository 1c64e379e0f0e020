"""Mixup and CutMix: inputs and loss written out, and what does not depend on the number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_training import batches, model
from torch.nn import functional

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.augmentation.mixing import draw, mixed, partners
from cwerm.algorithms.training.batches import Batch
from cwerm.algorithms.training.fit import Training
from cwerm.algorithms.training.ranks import CPU, Ranks
from cwerm.algorithms.training.recipe import Recipe
from cwerm.algorithms.training.targets import Beliefs

MIXUP = Recipe(epochs=2, batch_size=24, mixup=0.5)
CUTMIX = Recipe(epochs=2, batch_size=24, cutmix=1.0)


def test_the_loss_is_that_of_both_labels_by_their_own_weights() -> None:
    net = model()
    training = Training(net, batches(MIXUP), MIXUP, Ranks())
    batch = next(training.batches.epoch(0))
    share = draw(MIXUP, 0, 0, 8, 8).share
    assert 0 < share < 1
    total = 0.0
    for i in range(24):
        j = i + 1 if i % 2 == 0 else i - 1
        logits = net((share * batch.inputs[i] + (1 - share) * batch.inputs[j])[None])
        own, other = (functional.cross_entropy(logits, batch.labels[k, None]) for k in (i, j))
        cost = share * batch.weights[i] * own + (1 - share) * batch.weights[j] * other
        total += cost.item()
    loss = training.step(0, 0.1, mixed(batch, MIXUP, Ranks(), 0, 0), torch.zeros(2).double())
    assert loss.item() == pytest.approx(total / 24, rel=1e-5)


def test_cutmix_puts_a_window_of_the_other_in() -> None:
    batch = next(batches(CUTMIX).epoch(0))
    for step in range(20):
        found = mixed(batch, CUTMIX, Ranks(), 0, step)
        assert found.mixed is not None
        pairs = batch.inputs.view(12, 2, 3, 8, 8).flip(1).reshape(24, 3, 8, 8)
        of_other = (found.inputs == pairs).all(1) & (batch.inputs != pairs).any(1)
        of_own = (found.inputs == batch.inputs).all(1)
        assert (of_other | of_own).all()
        assert of_own.double().mean().item() == pytest.approx(found.mixed.share, abs=1e-9)
        rows, columns = torch.nonzero(of_other[0], as_tuple=True)
        if len(rows):
            area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
            assert len(rows) == area, "a rectangle"


def test_beliefs_go_along() -> None:
    beliefs = Beliefs(torch.arange(3).repeat(24, 1), torch.rand(24, 3))
    batch = next(batches(MIXUP).epoch(0))._replace(beliefs=beliefs)
    found = mixed(batch, MIXUP, Ranks(), 0, 0)
    assert found.mixed is not None
    assert found.mixed.beliefs is not None
    assert torch.equal(found.mixed.beliefs.probabilities[::2], beliefs.probabilities[1::2])


def test_shares_are_those_of_their_distributions() -> None:
    shares = np.array([draw(MIXUP, 3, step, 8, 8).share for step in range(3000)])
    assert abs(shares.mean() - 0.5) < 0.03
    assert shares.var() == pytest.approx(1 / 8, rel=0.06)  # of a beta distribution with .5 and .5
    kinds = [draw(Recipe(epochs=1, mixup=0.5, cutmix=1.0), 0, step, 8, 8) for step in range(2000)]
    assert abs(np.mean([kind.window is None for kind in kinds]) - 0.5) < 0.04
    assert draw(MIXUP, 3, 0, 8, 8) == draw(MIXUP, 3, 0, 8, 8)
    others = draw(MIXUP, 3, 1, 8, 8), draw(MIXUP, 4, 0, 8, 8)
    assert draw(MIXUP, 3, 0, 8, 8) not in others


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("recipe", [MIXUP, CUTMIX])
def test_parts_are_mixed_as_the_whole_where_they_are_even(recipe: Recipe, world_size: int) -> None:
    whole = next(batches(recipe).epoch(0))
    expected = mixed(whole, recipe, Ranks(), 0, 5).inputs
    found = []
    for rank in range(world_size):
        ranks = Ranks(world_size, rank)
        found.append(mixed(next(batches(recipe, ranks).epoch(0)), recipe, ranks, 0, 5).inputs)
    torch.testing.assert_close(torch.cat(found), expected)


def test_a_border_in_a_pair_leaves_two_samples_unmixed() -> None:
    assert partners(7, 0, CPU).tolist() == [1, 0, 3, 2, 5, 4, 6]
    assert partners(6, 7, CPU).tolist() == [0, 2, 1, 4, 3, 5]
    sizes = erm.batch_parts(14, 2)
    assert sizes == [7, 7]
    images = torch.rand(7, 3, 8, 8)
    batch = Batch(images, torch.zeros(7, dtype=torch.long), torch.ones(7), 14)
    found = mixed(batch, MIXUP, Ranks(2, 1), 0, 0).inputs
    same = [bool(torch.allclose(a, b)) for a, b in zip(found, images, strict=True)]
    assert same == [True, False, False, False, False, False, False]
