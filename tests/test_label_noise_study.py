"""The rooms of benchmarks/label_errors.py that figures depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cwerm.algorithms.labels.judgement import Judgement

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from label_noise import arms, figures, records, scenes, sources, training

    class Rooms:
        pass

    made: Any = Rooms()
    made.figures, made.records, made.scenes, made.sources = figures, records, scenes, sources
    made.arms, made.training = arms, training
    return made


def pool_of(rooms: Any) -> Any:
    generator = np.random.default_rng(0)
    labels = np.arange(600) % 10
    features = generator.normal(size=(600, 12)) + 3 * np.eye(10, 12)[labels]
    strangers = generator.normal(size=(50, 12)) - 9
    names = tuple("0123456789")
    return rooms.sources.Pool(
        features.astype(np.float32), labels, names, strangers.astype(np.float32)
    )


CELLS = ["clean", "symmetric 40", "pair 40", "instance 40", "annotators 40", "open set 20"]


@pytest.mark.parametrize("cell", [*CELLS, "tail, symmetric 20"])
def test_trusted_samples_are_apart_and_change_nothing_else(rooms: Any, cell: str) -> None:
    pool, kind = pool_of(rooms), rooms.scenes.CELLS[cell]
    bare = rooms.scenes.draw_scene(pool, "digits", kind, 3)
    scene = rooms.scenes.draw_scene(pool, "digits", kind, 3, (2,))
    np.testing.assert_array_equal(bare.features, scene.features)
    np.testing.assert_array_equal(bare.given, scene.given)
    features, labels = scene.trusted
    assert np.bincount(labels).tolist() == [2] * 10
    seen = {row.tobytes() for row in scene.features}
    assert not seen & {row.tobytes() for row in features}
    if cell == "open set 20":
        np.testing.assert_array_equal(scene.given, scene.truth)
        np.testing.assert_array_equal(scene.wrong, scene.features.mean(axis=1) < -4)
    else:
        np.testing.assert_array_equal(scene.wrong, scene.given != scene.truth)
    exact = {"clean": 0, "instance 40": 0.4, "open set 20": 0.2}
    assert scene.wrong.mean() == pytest.approx(
        exact.get(cell, kind.rate), abs=0 if cell in exact else 0.1
    )


def test_a_hundred_classes_all_have_trusted_and_given_samples(rooms: Any) -> None:
    kind = rooms.scenes.Cell("symmetric", 0.2, clusters=60)
    scene = rooms.scenes.draw_scene(pool_of(rooms), "digits", kind, 0, (2, 1))
    assert np.bincount(scene.truth, minlength=60).min() >= 2
    assert np.bincount(scene.trusted[1], minlength=60).tolist() == [2, 1] * 30


def test_figures_are_those_counted_by_hand(rooms: Any) -> None:
    truth = np.array([0, 0, 1, 1, 2, 2])
    given = np.array([0, 1, 1, 0, 2, 2])
    scene = rooms.scenes.Scene(
        np.zeros((6, 1), np.float32), given, truth, given != truth, 3, None, False, 0, np.arange(6)
    )
    verdict = rooms.figures.Verdict(
        quality=np.array([0.9, 0.2, 0.1, 0.3, 0.95, 0.8]),
        suggested=np.array([0, 0, 0, 2, 2, 2]),
        issue=np.array([False, True, True, False, False, False]),
        noise_rate=0.4,
        interval=(0.3, 0.5),
        opened=True,
    )
    found = rooms.figures.figures(scene, verdict)
    assert found["auroc"] == 6 / 8
    assert found["found"] == found["precision"] == found["recall"] == found["f1"] == 0.5
    assert found["suggestions"] == 0.5
    assert found["true_rate"] == pytest.approx(1 / 3)
    assert (found["covered"], found["opened"]) == (True, True)


def test_the_calibration_error_is_that_of_a_plain_loop(rooms: Any) -> None:
    generator = np.random.default_rng(0)
    quality = np.append(generator.random(500), [0.0, 1.0])
    right = generator.random(502) < quality**2
    expected, bins = 0.0, rooms.figures.BINS
    for low in range(bins):
        inside = (quality >= low / bins) & ((quality < (low + 1) / bins) | (low == bins - 1))
        if inside.any():
            expected += inside.sum() * abs(quality[inside].mean() - right[inside].mean())
    assert rooms.figures.calibration_error(quality, right) == pytest.approx(expected / 502)


def test_finished_cells_are_read_back_by_row(rooms: Any, tmp_path: Path) -> None:
    for seed, value in ((0, 0.5), (1, 0.7), (10, 0.9)):
        path = rooms.records.record_path(tmp_path, "detect", "digits", "pair 40", "nothing", seed)
        assert rooms.records.read_record(path) == {}
        family = {"rows": {"ours": {"auroc": value}}, "seconds": 1.0}
        rooms.records.write_record(path, {"family": family})
    rows = rooms.records.read_all(tmp_path, "detect", "digits", "pair 40", "nothing", [0, 1, 2])
    assert [made["auroc"] for made in rows["ours"]] == [0.5, 0.7]


def test_losses_are_those_of_their_papers(rooms: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 3, generator=generator), np.array([0, 2, 1, 1, 0])
    rows, wrong = torch.arange(5), 0.4
    p = logits.double().softmax(1)
    own = p[rows, torch.from_numpy(labels)]
    targets = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    weights, passed = np.array([0.0, 1, 2, 1, 4]), np.random.default_rng(1).dirichlet(np.ones(3), 3)
    training = rooms.training
    soft = -(torch.from_numpy(targets) * p.log()).sum(1) * torch.from_numpy(weights) / 1.6
    remembered = 0.3 * (p * p).sum(1)
    likely = (p @ torch.from_numpy(passed))[rows, torch.from_numpy(labels)]
    cases = [
        (training.targets_and_weights(targets, weights), soft),
        (training.generalised(labels), (1 - own**0.7) / 0.7),
        (training.early_learning(labels, 3), -own.log() + 3 * (1 - remembered).log()),
        (training.forward_corrected(labels, passed), -likely.log()),
    ]
    for objective, expected in cases:
        found = objective(logits, rows, 0)
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    kept = training.small_loss(labels, wrong)(logits, rows, 10)
    losses = -own.log()
    assert kept.count_nonzero() == 3
    assert kept.sum().item() == pytest.approx(
        5 / 3 * losses.sort().values[:3].sum().item(), rel=1e-5
    )


def test_relabelled_where_another_class_is_sure(rooms: Any) -> None:
    one_hot, weight = np.eye(2)[[0, 1, 0]], np.array([0.0, 1.5, 0.2])
    found = Judgement(
        weight=weight,
        quality=np.array([0.02, 0.9, 0.3]),
        issue=np.array([True, False, True]),
        suggested=np.array([1, 1, 1]),
        suggestion_probability=np.array([0.98, 0.9, 0.7]),
        belief=np.zeros((3, 2), np.float32),
        duplicate_of=np.zeros(3, np.int64),
    )
    targets, weights = rooms.arms._relabelled(found, one_hot, weight)
    np.testing.assert_array_equal(targets, np.eye(2)[[1, 1, 0]])
    np.testing.assert_allclose(weights, [0.96, 1.5, 0.2])
