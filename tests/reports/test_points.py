"""What tells points of a sweep apart, and how tables name and count them."""

from __future__ import annotations

from typing import Any

import pytest

from cwerm.reports.panels import describe, panels, varying
from cwerm.reports.points import matters, setting
from cwerm.reports.sweep_tables import hardware_lines, points_table, unpaired_line
from reports.made_up import a_job, a_row, a_sweep


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
