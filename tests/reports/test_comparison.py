"""Points, means and paired differences of sweeps, against NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cwerm.reports.comparison import best_point, paired_difference
from cwerm.reports.points import PointResults, Trial
from reports.made_up import STAGES, a_row, a_sweep


def point_of(scores: Sequence[float | None]) -> PointResults:
    trials = [
        Trial(str(i), i, "failed" if s is None else "done", None, s, {}, {"method": "cw-erm"})
        for i, s in enumerate(scores)
    ]
    return PointResults({}, tuple(trials), False)


accuracies = st.floats(0, 1)
by_seed = st.dictionaries(st.integers(0, 6), accuracies, max_size=6)


@given(by_seed, by_seed)
def test_the_paired_difference_is_that_of_the_t_test(
    scores: dict[int, float], baseline: dict[int, float]
) -> None:
    seeds = scores.keys() & baseline.keys()
    found = paired_difference(scores, baseline)
    if not seeds:
        assert found is None
        return
    assert found is not None
    differences = np.array([scores[seed] - baseline[seed] for seed in seeds])
    assert found.n == len(seeds)
    assert found.mean == pytest.approx(np.mean(differences), abs=1e-12)
    if len(seeds) == 1:
        assert found.low is None
        assert found.high is None
        return
    error = np.std(differences, ddof=1) / np.sqrt(len(seeds))
    half = stats.t(df=len(seeds) - 1).ppf(0.975) * error
    assert found.low == pytest.approx(found.mean - half, abs=1e-12)
    assert found.high == pytest.approx(found.mean + half, abs=1e-12)


def test_the_interval_equals_scipys_own() -> None:
    ours, theirs = [0.81, 0.84, 0.79, 0.86], [0.80, 0.80, 0.80, 0.81]
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@given(st.lists(accuracies, min_size=1, max_size=6))
def test_mean_and_sample_deviation(scores: list[float]) -> None:
    point = point_of(scores)
    assert point.mean == pytest.approx(np.mean(scores))
    if len(scores) == 1:
        assert point.deviation is None
    else:
        assert point.deviation == pytest.approx(np.std(scores, ddof=1), abs=1e-12)


points = st.lists(
    st.lists(st.none() | accuracies, min_size=1, max_size=3).map(point_of), max_size=6
)


@given(points, st.sampled_from(["max", "min"]))
def test_the_best_point_has_the_best_mean_of_the_complete_ones(
    given_points: list[PointResults], mode: str
) -> None:
    means = [
        float(np.mean([trial.score for trial in point.trials]))  # type: ignore[misc]
        for point in given_points
        if all(trial.status == "done" for trial in point.trials)
    ]
    best = best_point(given_points, mode)
    if not means:
        assert best is None
        return
    assert best is not None
    assert best.mean == (max if mode == "max" else min)(means)


def test_the_best_seed_does_not_make_the_best_point() -> None:
    steady, lucky = point_of([0.8, 0.8]), point_of([0.9, 0.6])
    unfinished = point_of([0.99, None])
    assert best_point([lucky, unfinished, steady], "max") is steady
    assert best_point([lucky, unfinished, steady], "min") is lucky


def test_trials_that_differ_in_seed_and_place_alone_are_one_point() -> None:
    rows = [
        a_row({"method": "cw-erm", "coreset.ratio": ratio, "data.split_seed": seed}, seed, 0.8)
        for seed in range(3)
        for ratio in (0.01, 0.1)
    ]
    rows.append(a_row({"method": "cw-erm", "coreset.ratio": 0.1}, 3, None, status="failed"))
    sweep = a_sweep(rows, "method", "coreset.ratio")
    assert [point.settings for point in sweep.points] == [
        {"method": "cw-erm", "coreset.ratio": 0.01},
        {"method": "cw-erm", "coreset.ratio": 0.1},
    ]
    assert [[*point.scores] for point in sweep.points] == [[0, 1, 2], [0, 1, 2]]
    assert [point.complete for point in sweep.points] == [True, False]
    apart = a_sweep(rows, "method", "coreset.ratio", "data.split_seed")
    assert len(apart.points) == 6


def test_each_point_has_the_baseline_of_its_own_data() -> None:
    rows = [
        a_row({"method": method, "data.noise": noise, "coreset.ratio": ratio}, 0, 0.8)
        for noise in ("none", "flip")
        for method, ratios in (("erm", [0.01]), ("cw-erm", [0.01, 0.1]))
        for ratio in ratios
    ]
    sweep = a_sweep(rows, "method", "data.noise", "coreset.ratio")
    for point in sweep.points:
        baseline = sweep.baseline_of(point)
        assert baseline is not None
        assert baseline.is_baseline
        assert baseline.settings["data.noise"] == point.settings["data.noise"]
        assert (sweep.difference(point) is None) == (point.settings["method"] == "erm")


def test_a_baseline_that_uses_a_key_must_agree_in_it() -> None:
    rows = [
        a_row({"coreset.method": method, "coreset.ratio": ratio}, 0, 0.8)
        for method, ratio in (("random", 0.01), ("random", 0.1), ("moderate", 0.1), ("moderate", 1))
    ]
    sweep = a_sweep(
        rows, "coreset.method", "coreset.ratio", baseline={"coreset.method": "random"}
    )  # fmt: skip
    found = [sweep.baseline_of(point) for point in sweep.points]
    first, second, _, _ = sweep.points
    assert found == [first, second, second, None]


def test_no_baseline_no_difference() -> None:
    sweep = a_sweep([a_row({"method": "erm"}, 0, 0.8)], "method", baseline={})
    assert not sweep.points[0].is_baseline
    assert sweep.difference(sweep.points[0]) is None


def test_seconds_are_means_over_what_is_done_and_has_the_stage() -> None:
    rows = [
        a_row({}, 0, 0.8, (4.0, 20.0, 5.0, 10.0, 2.0, 30.0)),
        a_row({}, 1, 0.8, (6.0, 20.0, None, 20.0, 2.0, 50.0)),
        a_row({}, 2, None, (6.0, 20.0, 900.0, None, None, None), "failed"),
    ]
    (point,) = a_sweep(rows, "method").points
    assert [point.seconds(stage) for stage in STAGES] == [5.0, 20.0, 5.0, 15.0, 2.0, 40.0]
    assert point.seconds("total") == np.mean([71, 98])
    assert point.average("auroc") is None


def test_a_control_is_not_the_best_point() -> None:
    steady, control = point_of([0.8, 0.8]), point_of([0.9, 0.9])
    for trial in control.trials:
        trial.job["control"] = "permuted"
    assert best_point([steady, control], "max") is steady
    assert best_point([control], "max") is None
