"""Reports of sweeps: tables and files, the numbers against NumPy."""

from __future__ import annotations

import base64
import csv
import itertools
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from object_store import s3_prefix  # noqa: F401

from cwerm.reports.report import report
from cwerm.store.storage import open_storage
from reports.made_up import (
    KEYS,
    KINDS,
    RATIOS,
    a_description,
    a_folder,
    a_row,
    cells,
    check_picture,
    leave,
    scores_of,
    shown,
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_has_its_files_and_they_can_be_seen(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_folder(tmp_path, kind)
    written = report(folder)
    names = [f"{name}.{suffix}" for name in KINDS[kind][2] for suffix in ("png", "svg")]
    expected = ["table.md", "table.csv", *names, "report.html"]
    assert written == [f"{folder}/report/{name}" for name in expected]
    page = Path(written[-1]).read_text()
    for name in KINDS[kind][2]:
        check_picture(Path(folder, "report", f"{name}.png"))
        svg = Path(folder, "report", f"{name}.svg").read_bytes()
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert len(re.findall(rb"<path|<use", svg)) > 50
        assert base64.b64encode(svg).decode() in page
    assert "src=" not in page.replace('src="data:', "")
    assert "http" not in re.sub(r'src="[^"]*"', "", page)
    printed = capsys.readouterr().out
    assert "All points of study" in printed
    assert written[-1] in printed


def test_the_numbers_of_the_csv_are_numpys(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "ratio")
    report(folder)
    rows = KINDS["ratio"][0]
    plain = scores_of(rows, method="erm") / 100
    with Path(folder, "report", "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 1 + 2 * len(RATIOS)
    for line in table[1:]:
        method, ratio = line["coreset.method"], float(line["coreset.ratio"])
        ours = scores_of(rows, method="cw-erm", coreset=method, ratio=ratio) / 100
        assert int(line["n"]) == len(ours)
        assert int(line["trials"]) == 3
        assert line["baseline"] == "false"
        assert float(line["test_accuracy_mean"]) == pytest.approx(ours.mean())
        assert float(line["test_accuracy_sd"]) == pytest.approx(ours.std(ddof=1))
        change = ours - plain[: len(ours)]
        quantile = {2: 12.7062047, 3: 4.3026527}[len(ours)]  # Student's t at 0.975
        half = quantile * change.std(ddof=1) / np.sqrt(len(ours))
        assert float(line["difference"]) == pytest.approx(change.mean())
        assert float(line["difference_low"]) == pytest.approx(change.mean() - half)
        assert float(line["difference_high"]) == pytest.approx(change.mean() + half)
        assert float(line["seconds_reweight_mean"]) == pytest.approx(20 + 1500 * ratio)
    assert table[0]["baseline"] == "true"
    assert table[0]["difference"] == table[0]["seconds_reweight_mean"] == ""
    assert [len(line) for line in table] == [len(table[0])] * len(table)


def test_the_table_of_all_points(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "ratio")
    report(folder)
    rows = KINDS["ratio"][0]
    text = Path(folder, "report", "table.md").read_text()
    header, _, plain, *others = cells(text, "All points of study")
    assert header == [*KEYS, "n", "test accuracy, %", "difference [95 %]", "seconds"]
    baseline = shown(scores_of(rows, method="erm"))
    assert plain == ["ERM", "-", "-", "3", baseline, "baseline", "304.0"]
    expected = shown(scores_of(rows, method="cw-erm", coreset="moderate", ratio=0.001))
    assert others[0][:5] == ["CW-ERM", "moderate", "0.1 %", "3", expected]
    assert others[-1][3] == "2"
    means = {
        (m, r): scores_of(rows, method="cw-erm", coreset=m, ratio=r).mean()
        for m, r in itertools.product(("moderate", "random"), RATIOS)
        if (m, r) != ("random", 0.1)  # not all of its seeds are done
    }
    method, ratio = max(means, key=lambda key: means[key])
    assert f"all done: CW-ERM, coreset {method}, ratio {100 * ratio:g} %." in text


def test_validation_chooses_and_tests_tell(tmp_path: Path) -> None:
    """Two ratios on noisy labels: what is best by test accuracy is not chosen, and differences are its."""
    rows = []
    for seed in range(2):
        plain = a_row({"method": "erm"}, seed, 0.70 + 0.02 * seed)
        rows.append(plain | {"validation_accuracy": 0.50})
        for ratio, test, validation in ((0.01, 0.80, 0.51), (0.1, 0.75, 0.55)):
            row = a_row({"method": "cw-erm", "coreset.ratio": ratio}, seed, test + 0.02 * seed)
            rows.append(row | {"validation_accuracy": validation, "auroc": 0.5 + 4 * ratio})
    folder = str(tmp_path / "study")
    keys = ["method", "coreset.ratio"]
    leave(open_storage(folder), rows, a_description(keys, "ratio", metric="validation_accuracy"))
    written = report(folder)
    text = Path(folder, "report", "table.md").read_text()
    header, _, *lines = cells(text, "All points of study")
    assert header == [
        *keys, "n", "validation accuracy, %", "test accuracy, %", "difference [95 %]", "AUROC",
        "seconds",
    ]  # fmt: skip
    plain, low, high = ("71.00 ± 1.41", "81.00 ± 1.41", "76.00 ± 1.41")
    assert [line[3:7] for line in lines] == [
        ["50.00 ± 0.00", plain, "baseline", "-"],
        ["51.00 ± 0.00", low, "+10.00 [+10.00, +10.00]", "0.540 ± 0.000"],
        ["55.00 ± 0.00", high, "+5.00 [+5.00, +5.00]", "0.900 ± 0.000"],
    ]
    best = "CW-ERM, ratio 10 %, chosen by validation accuracy 55.00 ± 0.00 %; test accuracy"
    assert f"{best} {high} %." in text
    assert f"{folder}/report/auroc_by_ratio.png" in written
    check_picture(Path(folder, "report", "auroc_by_ratio.png"))
    with Path(folder, "report", "table.csv").open() as file:
        assert [float(line["validation_accuracy_mean"]) for line in csv.DictReader(file)] == [
            pytest.approx(value) for value in (0.5, 0.51, 0.55)
        ]


def test_failures_are_listed_with_their_reasons(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "ratio")
    page = Path(report(folder)[-1]).read_text()
    assert page.count("the training loss is &lt;nan&gt; in epoch 3; lower train.lr") == 1
    assert "<nan>" not in page
    failed = cells(Path(folder, "report", "table.md").read_text(), "Failed and stopped trials")
    assert len(failed) == 3
    assert failed[2][1:3] == ["CW-ERM, coreset random, ratio 10 %", "failed"]


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
def test_table1_has_methods_by_extractor_and_classifier(source: str, tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "table1")
    report(folder)
    rows = KINDS["table1"][0]
    text = Path(folder, "report", "table.md").read_text()
    header, _, plain, ours = cells(text, f"{source}: test accuracy, %")
    pairs = [
        *itertools.product(("preactresnet18", "resnet20"), ("vit_base_patch16_224", "resnet50"))
    ]
    assert header == ["method", *(x for m, b in pairs for x in (f"{b}, {m}", "minutes"))]
    assert plain[0] == "ERM"
    assert ours[0] == "CW-ERM"
    for place, (model, backbone) in enumerate(pairs):
        where = {"source": source, "model": model}
        assert plain[1 + 2 * place] == shown(scores_of(rows, method="erm", **where))
        assert plain[2 + 2 * place] == f"{34 / 60:.2f}"
        scores = scores_of(rows, method="cw-erm", backbone=backbone, **where)
        assert ours[1 + 2 * place] == shown(scores)


def test_robustness_has_methods_by_data(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "robustness")
    report(folder)
    text = Path(folder, "report", "table.md").read_text()
    header, _, *rows = cells(text, "study: test accuracy, %")
    assert header == ["method", "clean", "40 % symmetric", "40 % flip", "long tail 1/50"]
    assert [row[0] for row in rows] == ["ERM", "CW-ERM", "CW-ERM, permuted"]
    first = [100 * row["test_accuracy"] for row in KINDS["robustness"][0][:2]]
    assert rows[0][1] == shown(np.array(first))
    assert "Best mean" not in text


@pytest.mark.parametrize("report_kind", [None, "ratio"])
def test_a_sweep_without_baseline_and_of_one_seed(report_kind: str | None, tmp_path: Path) -> None:
    rows = [a_row({"train.lr": lr}, 0, 0.8 + lr) for lr in (0.01, 0.1)]
    description = a_description(["train.lr"], report_kind, baseline={}, metric="seconds_total")
    leave(open_storage(str(tmp_path)), rows, description | {"mode": "min"})
    report(str(tmp_path))
    header, _, *lines = cells((tmp_path / "report" / "table.md").read_text(), "All points of study")
    assert header == ["train.lr", "n", "seconds total", "seconds"]
    assert lines == [["0.01", "1", "34.000", "34.0"], ["0.1", "1", "34.000", "34.0"]]
    check_picture(tmp_path / "report" / "accuracy.png")


def test_a_sweep_over_seeds_alone(tmp_path: Path) -> None:
    rows = [a_row({}, seed, accuracy) for seed, accuracy in enumerate((0.8, 0.81, 0.85))]
    leave(open_storage(str(tmp_path)), rows, a_description([], baseline={}))
    report(str(tmp_path))
    _, _, *lines = cells((tmp_path / "report" / "table.md").read_text(), "All points of study")
    assert lines == [["CW-ERM", "3", "82.00 ± 2.65", "34.0"]]


def test_a_report_on_s3(s3_prefix: str, tmp_path: Path) -> None:  # noqa: F811
    rows, keys, names = KINDS["backbones"]
    storage = open_storage(f"{s3_prefix}/sweeps/study")
    leave(storage, rows, a_description(keys, "backbones"))
    written = report(storage.root)
    assert written[-1] == f"{s3_prefix}/sweeps/study/report/report.html"
    local = report(storage.root, tmp_path)
    assert {Path(path).name for path in local} == {path.rpartition("/")[2] for path in written}
    for name in (f"{names[0]}.png", "table.csv", "table.md"):
        assert storage.read_bytes(f"report/{name}") == (tmp_path / name).read_bytes()
