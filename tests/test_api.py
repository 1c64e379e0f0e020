"""The Python API on plain arrays: right answers, and Ray never loaded."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PRELUDE = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np
import cwerm

rng = np.random.default_rng(0)
labels = np.repeat([0, 1, 2], [60, 30, 30])
features = (rng.normal(size=(120, 8)) + 2 * labels[:, None]).astype(np.float32)
"""
POSTLUDE = """
assert "ray" not in sys.modules, "the API on arrays needs no Ray"
print("checked")
"""


def check(program: str) -> None:
    """Run the program in a fresh interpreter, after the arrays are made."""
    source = PRELUDE + textwrap.dedent(program) + POSTLUDE
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "checked\n"


def test_select_coreset_takes_the_distances_nearest_to_their_median() -> None:
    check(
        """
        ids = cwerm.select_coreset(features, labels, ratio=0.1)
        expected = []
        for label, count in ((0, 6), (1, 3), (2, 3)):
            members = np.flatnonzero(labels == label)
            center = np.median(features[members], axis=0)
            distances = np.linalg.norm(features[members] - center, axis=1)
            order = np.argsort(np.abs(distances - np.median(distances)))
            expected += members[order[:count]].tolist()
        assert ids.tolist() == sorted(expected)
        """
    )


def test_broadcast_weights_gives_each_sample_the_weight_of_its_nearest() -> None:
    check(
        """
        ids = np.arange(5, 120, 10)
        weights = rng.random(len(ids)).astype(np.float32)
        found, near, distances = cwerm.broadcast_weights(features, labels, ids, weights)
        all_distances = np.linalg.norm(features[:, None] - features[ids][None], axis=2)
        nearest = all_distances.argmin(axis=1)
        assert (near[:, 0] == ids[nearest]).all()
        np.testing.assert_allclose(distances[:, 0], all_distances.min(axis=1), atol=1e-4)
        expected = weights[nearest] / weights[nearest].mean()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert abs(found.mean() - 1) < 1e-6
        """
    )


@pytest.mark.slow
def test_meta_weight_net_weighs_wrong_labels_down() -> None:
    check(
        """
        import torch
        torch.set_num_threads(1)
        noisy = labels.copy()
        wrong = rng.choice(120, 36, replace=False)
        noisy[wrong] = (noisy[wrong] + 1) % 3
        meta = rng.choice(np.setdiff1d(np.arange(120), wrong), 30, replace=False)
        rest = np.setdiff1d(np.arange(120), meta)
        fit = lambda: cwerm.MetaWeightNet(seed=0).fit(
            features[rest], noisy[rest], features[meta], labels[meta]
        )
        weights = fit()
        assert weights.shape == (90,) and weights.dtype == np.float32
        assert ((weights > 0) & (weights < 1)).all()
        is_wrong = np.isin(rest, wrong)
        assert weights[is_wrong].mean() < 0.9 * weights[~is_wrong].mean()
        """
    )


def test_meta_gradient_equals_finite_differences() -> None:
    check(
        """
        import torch
        from cwerm.algorithms.reweighting.metaweight import WeightNet
        torch.manual_seed(0)
        x, y = torch.from_numpy(features), torch.from_numpy(labels)
        model = torch.nn.Linear(8, 3).double()
        net = WeightNet().double()
        batch, meta, lr = (x[::2].double(), y[::2]), (x[1::2].double(), y[1::2]), 0.1
        gradients = cwerm.meta_gradient(model, net, batch, meta, lr)

        def meta_loss():
            losses = torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
            weights = net(losses.detach()[:, None]).reshape(-1)
            loss = (weights.detach() * losses).mean()
            weight, bias = torch.autograd.grad(loss, [model.weight, model.bias])
            logits = meta[0] @ (model.weight - lr * weight).T + model.bias - lr * bias
            return torch.nn.functional.cross_entropy(logits, meta[1]).item()

        step = 1e-5
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            flat, expected = parameter.data.view(-1), gradient.reshape(-1)
            for i in np.linspace(0, len(flat) - 1, min(4, len(flat))).astype(int):
                flat[i] += step
                above = meta_loss()
                flat[i] -= 2 * step
                below = meta_loss()
                flat[i] += step
                slope = (above - below) / (2 * step)
                assert abs(slope - expected[i]) < 1e-7 + 1e-4 * abs(slope), (slope, expected[i])
        """
    )


def test_bad_settings_are_one_line() -> None:
    check(
        """
        ids, weights = np.arange(5, 120, 10), np.ones(12)
        vote = lambda **s: cwerm.broadcast_weights(features, labels, ids, weights, "vote", **s)
        select = lambda *a, **s: cwerm.select_coreset(features, labels, *a, **s)
        for call, message in (
            (lambda: vote(neighbors=2.0), "neighbors must be a whole number, got 2.0"),
            (lambda: vote(neighbors=0), "neighbors must be at least 1, got 0"),
            (lambda: vote(neighbors=12), "neighbors must be from 1 to 11"),
            (lambda: vote(neighbors=5, power=np.nan), "power must be a finite number"),
            (lambda: vote(neighbors=5, power=-1), "power must be a finite number"),
            (lambda: select("0.1"), "the coreset ratio must be above 0 and at most 1, got '0.1'"),
            (lambda: select(0.1, seed=-1), "the seed must be at least 0, got -1"),
            (lambda: select(0.1, "el2n", seed=None), "the seed must be a whole number, got None"),
        ):
            try:
                call()
            except ValueError as error:
                assert str(error).startswith(message) and len(str(error).splitlines()) == 1, error
            else:
                raise AssertionError(message)
        """
    )


def test_the_readmes_python_finds_the_wrong_labels() -> None:
    """Its blocks as they stand, on clusters of which a fifth of the labels are wrong."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 1000)
    features = (random.normal(size=(1000, 16)) + 5 * np.eye(16)[truth]).astype(np.float32)
    labels = np.where(random.random(1000) < 0.2, (truth + 1) % 4, truth)
    given = {"features": features[:960], "labels": labels[:960]}
    given |= {"meta_features": features[960:], "meta_labels": truth[960:]}
    for block in blocks:
        if "safe_open" not in block:  # of a run's model: in tests/stages/test_train.py
            exec(block, given)
    wrong = (labels != truth)[:960]
    errors: Any = given["errors"]
    assert (errors.is_issue == wrong).mean() > 0.98
    assert (errors.suggested_label == truth[:960]).mean() > 0.98
    table: Any = given["table"]
    assert len(table) == len(given["weights"]) == 960
