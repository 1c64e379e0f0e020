"""Points, means and paired differences of sweeps, against NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cwerm.reports.comparison import SweepResults, best_point, paired_difference, read_sweep
from cwerm.reports.panels import describe, panels, varying
from cwerm.reports.points import PointResults, Trial, matters, setting
from cwerm.reports.sweep_tables import hardware_lines, points_table, unpaired_line
from cwerm.sweeps.results import SCHEMA
from reports.made_up import STAGES, a_description, a_job, a_row


def a_sweep(rows: list[dict[str, Any]], *keys: str, **changes: Any) -> SweepResults:
    return read_sweep(a_description(keys, **changes), pa.Table.from_pylist(rows, SCHEMA))


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


def test_which_keys_make_a_difference() -> None:
    erm, coreset, ours = (a_job({"method": m}) for m in ("erm", "c-random-erm", "cw-erm"))
    assert not matters(erm, "coreset.ratio")
    assert matters(erm, "coreset.meta_per_class")  # nobody trains on the meta set
    assert not matters(erm, "control")
    assert matters(coreset, "coreset.ratio")
    assert not matters(coreset, "coreset.method")
    assert not matters(coreset, "features.backbone")
    assert matters(a_job({"method": "c-moderate-erm"}), "features.backbone")
    on_images = {"method": "w-erm", "reweight.method": "metaweightnet", "reweight.input": "images"}
    assert not matters(a_job(on_images), "features.backbone")
    assert matters(a_job(on_images | {"method": "cw-erm"}), "features.backbone")
    assert matters(a_job(on_images | {"reweight.input": "features"}), "features.backbone")
    assert matters(ours, "broadcast.neighbors")
    assert not matters(ours, "data.noise_rate")
    assert matters(ours | {"data": {"noise": "flip", "noise_rate": 0.4}}, "data.noise_rate")
    assert not matters({"method": "cw-erm"}, "coreset.ratio")
    assert setting(ours, "coreset.ratio") is None
    assert setting(erm, "no.such", 3) == 3


def test_names_tell_what_matters() -> None:
    keys = ["method", "control", "coreset.ratio", "data.noise", "data.imbalance", "train.flip"]
    job = a_job({"control": "permuted", "coreset.ratio": 0.005, "data.noise": "flip"})
    assert describe(job, keys) == "CW-ERM, permuted, ratio 0.5 %, flip on, 40 % flip"
    erm = a_job({"method": "erm", "data.imbalance": 50.0})
    assert describe(erm, keys) == "ERM, flip on, long tail 1/50"
    assert describe(erm, ["data.noise"]) == "long tail 1/50"
    assert describe(a_job({}), ["data.imbalance", "coreset.method"]) == "coreset auto, clean"


def test_plain_training_stands_beside_every_backbone() -> None:
    rows = [a_row({"method": "erm"}, 0, 0.8)]
    rows += [
        a_row({"method": method, "features.backbone": backbone}, 0, 0.8)
        for backbone in ("resnet50", "resnet18")
        for method in ("w-erm", "cw-erm")
    ]
    sweep = a_sweep(rows, "method", "features.backbone", "train.epochs")
    assert varying(sweep) == ["method", "features.backbone"]
    found = panels(sweep, ["features.backbone"])
    assert [panel.title for panel in found] == ["resnet50", "resnet18"]
    for panel in found:
        assert [*panel.rows(["method"])] == ["ERM", "W-ERM", "CW-ERM"]


def test_trainings_that_are_the_same_are_one_row() -> None:
    rows = [
        a_row({"method": method, "features.image_size": size}, seed, 0.8 + seed / 100)
        for method in ("erm", "c-random-erm", "cw-erm")
        for size in (64, 96)
        for seed in (0, 1)
    ]
    table = points_table(a_sweep(rows, "method", "features.image_size"))
    shown = [row[:2] for row in table.rows]
    assert shown == [["ERM", "-"], ["C-random-ERM", "-"], ["CW-ERM", "64"], ["CW-ERM", "96"]]


def test_a_backbones_own_file_of_weights_is_no_part_of_its_name() -> None:
    rows = [
        a_row({"features.backbone": b, "features.weights": w, "train.lr": lr}, 0, 0.8)
        for b, w, lr in (("resnet50", "a.pth", 0.1), ("resnet18", "b.pth", 0.2))
    ]
    keys = ["features.weights", "features.backbone", "train.lr"]
    assert varying(a_sweep(rows, *keys)) == ["features.backbone", "train.lr"]
    rows.append(a_row({"features.backbone": "resnet18", "features.weights": "random"}, 0, 0.8))
    assert varying(a_sweep(rows, *keys)) == keys


def test_of_trials_that_came_twice_one_that_is_done_counts() -> None:
    failed, done = a_row({}, 0, None, status="failed"), a_row({}, 0, 0.8)
    for rows in ([failed, done], [done, failed], [done, done]):
        (point,) = a_sweep(rows, "method").points
        assert [trial.status for trial in point.trials] == ["done"]
        assert point.scores == {0: 0.8}


def test_a_control_is_not_the_best_point() -> None:
    steady, control = point_of([0.8, 0.8]), point_of([0.9, 0.9])
    for trial in control.trials:
        trial.job["control"] = "permuted"
    assert best_point([steady, control], "max") is steady
    assert best_point([control], "max") is None


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("control", ("none", "permuted")),
        ("train.loss", ("cross_entropy", "focal")),
        ("data.source", ("fashion_mnist", "mnist")),
    ],
)
def test_a_key_that_goes_with_the_method_is_shown_all_the_same(key: str, values: Any) -> None:
    pairs = zip(("w-erm", "cw-erm"), values, strict=True)
    rows = [
        a_row({"method": method, key: value, "coreset.meta": "hold_out"}, 0, 0.8)
        for method, value in pairs
    ]
    sweep = a_sweep(rows, "method", key)
    assert varying(sweep) == ["method", key]
    words = [describe(point.job, varying(sweep)) for point in sweep.points]
    assert words[0] != words[1].replace("CW-ERM", "W-ERM"), "more than the method tells them apart"


def test_values_that_are_nearly_alike_have_names_of_their_own() -> None:
    rows = [a_row({"train.lr": lr}, 0, 0.8) for lr in (0.0123412, 0.0123414)]
    sweep = a_sweep(rows, "train.lr")
    found = [describe(point.job, ["train.lr"]) for point in sweep.points]
    assert found == ["train lr 0.0123412", "train lr 0.0123414"]


@pytest.mark.parametrize("rates", [(0.1, 0.01), (0.01, 0.1)])
def test_of_two_baselines_that_fit_none_is_taken(rates: tuple[float, float]) -> None:
    """They differ in a key that the point does not know; by which comes first, it would win or lose."""
    known = {"coreset.meta": "hold_out", "reweight.method": "metaweightnet"}
    rows = [a_row({"method": "w-erm", "reweight.lr": lr, **known}, 0, lr) for lr in rates]
    rows.append(a_row({"method": "c-random-erm", **known}, 0, 0.5))
    sweep = a_sweep(rows, "method", "reweight.lr", baseline={"method": "w-erm"})
    assert sweep.difference(sweep.points[2]) is None
    assert unpaired_line(sweep)[0].startswith("Without a difference: C-random-ERM. ")
    alone = a_sweep(rows[1:], "method", "reweight.lr", baseline={"method": "w-erm"})
    assert alone.difference(alone.points[1]) is not None
    assert unpaired_line(alone) == []


def test_pairs_are_counted_where_seeds_are_missing() -> None:
    rows = [a_row({"method": "erm"}, seed, 0.7) for seed in (0, 1, 2)]
    rows += [a_row({"method": "cw-erm"}, seed, 0.8) for seed in (2, 3, 4)]
    sweep = a_sweep(rows, "method")
    assert points_table(sweep).rows[1][-2] == "+10.00 (n = 1)"


def test_seconds_say_what_they_were_measured_on_and_beside_what() -> None:
    rows = [a_row({"method": "erm"}, seed, 0.9) for seed in range(3)]
    (line,) = hardware_lines(a_sweep(rows, "method"))
    assert line == "Trained on: 2 workers on a processor, 1 thread each."
    rows[2] |= {"started": rows[1]["ended"] - 1, "hardware": "1 worker on a card, 4 threads"}
    named, beside = hardware_lines(a_sweep(rows, "method"))
    assert named.endswith(" 1 thread each; 1 worker on a card, 4 threads.")
    assert beside.startswith("2 of 3 trials ran beside others")
    rows[2] |= {"status": "failed", "test_accuracy": None}
    assert len(hardware_lines(a_sweep(rows, "method"))) == 1
    for row in rows:
        row |= {"started": None, "ended": None, "hardware": None}  # stopped, or of before
    assert hardware_lines(a_sweep(rows, "method")) == []
