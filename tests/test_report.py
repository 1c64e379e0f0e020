"""Reports of sweeps and runs that the tests make up: numbers against NumPy, figures that can be seen."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from object_store import s3_prefix  # noqa: F401
from PIL import Image
from test_comparison import SCHEMA, a_description, a_row

from cwerm.errors import UserError
from cwerm.report import report
from cwerm.reports import figure_style, figures, run_page
from cwerm.reports.comparison import Sweep, read_sweep
from cwerm.schema import table_schema
from cwerm.storage import Storage, open_storage

Rows = list[dict[str, Any]]
RATIOS = (0.001, 0.01, 0.1)
KEYS = ("method", "coreset.method", "coreset.ratio")
REASON = "train.lr: the training loss is <nan> in epoch 3;\nlower train.lr"


def of_ratios() -> Rows:
    """Plain training and two coreset methods at three ratios with three seeds; one trial failed."""
    random = np.random.default_rng(0)
    rows = [
        a_row({"method": "erm"}, seed, random.normal(0.94, 0.002), (4.0, *[None] * 4, 300.0))
        for seed in range(3)
    ]
    for method, ratio, seed in itertools.product(("moderate", "random"), RATIOS, range(3)):
        settings = {"method": "cw-erm", "coreset.method": method, "coreset.ratio": ratio}
        accuracy = random.normal(0.945, 0.002)
        seconds = (4.0, 26.0, 5.0 + seed, 20 + 1500 * ratio, 8 + seed, random.uniform(290, 310))
        rows.append(a_row(settings, seed, accuracy, seconds))
    rows[-1] |= {"status": "failed", "error": REASON, "test_accuracy": None, "seconds_total": None}
    return rows


def of_backbones() -> Rows:
    random = np.random.default_rng(1)
    rows = [a_row({"method": "erm"}, seed, random.normal(0.86, 0.003)) for seed in range(3)]
    for backbone, method, seed in itertools.product(
        ("tf_efficientnet_lite0", "vit_small_patch14_dinov2.lvd142m"), ("w-erm", "cw-erm"), range(3)
    ):
        settings = {"method": method, "features.backbone": backbone}
        rows.append(a_row(settings, seed, random.normal(0.87, 0.003)))
    return rows


def of_noise() -> Rows:
    random = np.random.default_rng(2)
    settings = [
        {"method": method, "control": control, "data.noise": noise, "data.imbalance": imbalance}
        for noise, imbalance in (("none", 1.0), ("symmetric", 1.0), ("flip", 1.0), ("none", 50.0))
        for method, control in (("erm", "none"), ("cw-erm", "none"), ("cw-erm", "permuted"))
    ]
    return [
        a_row(each | {"data.split_seed": seed}, seed, random.normal(0.8, 0.01))
        for each in settings
        for seed in range(2)
    ]


def of_table1() -> Rows:
    """Two data sets and classifiers; plain training, which needs no features, ran once for each."""
    random = np.random.default_rng(3)
    rows = []
    for source, model in itertools.product(("cifar10", "cifar100"), ("preactresnet18", "resnet20")):
        where = {"data.source": source, "train.model": model}
        for seed in range(2):
            rows.append(a_row({"method": "erm", **where}, seed, random.normal(0.94, 0.002)))
            for backbone in ("vit_base_patch16_224", "resnet50"):
                settings = {"method": "cw-erm", **where, "features.backbone": backbone}
                seconds = (4.0, 60.0, 6.0, random.uniform(50, 90), 10.0, 40.0)
                rows.append(a_row(settings, seed, random.normal(0.95, 0.002), seconds))
    return rows


KINDS: dict[str, tuple[Rows, list[str], list[str]]] = {
    "ratio": (of_ratios(), [*KEYS], ["accuracy_by_ratio", "seconds_by_ratio"]),
    "backbones": (of_backbones(), ["method", "features.backbone"], ["accuracy_by_backbone"]),
    "robustness": (
        of_noise(),
        ["method", "control", "data.noise", "data.imbalance"],
        ["accuracy"],
    ),
    "table1": (
        of_table1(),
        ["method", "data.source", "features.backbone", "train.model"],
        ["accuracy"],
    ),
}


def sweep_of(kind: str) -> Sweep:
    rows, keys, _ = KINDS[kind]
    return read_sweep(a_description(keys, kind), pa.Table.from_pylist(rows, SCHEMA))


def leave(storage: Storage, rows: Rows, description: dict[str, Any]) -> None:
    """What a sweep leaves in its folder."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), buffer)
    storage.write_bytes("results.parquet", buffer.getvalue())
    storage.write_bytes("sweep.json", json.dumps(description).encode())


def a_folder(tmp_path: Path, kind: str) -> str:
    rows, keys, _ = KINDS[kind]
    folder = str(tmp_path / "store" / "sweeps" / "study")
    leave(open_storage(folder), rows, a_description(keys, kind))
    return folder


def cells(markdown: str, title: str) -> list[list[str]]:
    """The rows of the Markdown table below a title."""
    lines = markdown.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def scores_of(rows: Rows, **wanted: Any) -> np.ndarray:
    """Accuracies by seed of the finished trials whose jobs have these values, in percent."""
    found = []
    for row in rows:
        job = json.loads(row["job"])
        values = {"ratio": job["coreset"]["ratio"], "coreset": job["coreset"]["method"],
                  "method": job["method"], "source": job["data"]["source"],
                  "model": job["train"]["model"], "backbone": job["features"]["backbone"]}  # fmt: skip
        if row["status"] == "done" and all(values[k] == v for k, v in wanted.items()):
            found.append(100 * row["test_accuracy"])
    return np.array(found)


def shown(scores: np.ndarray) -> str:
    return f"{scores.mean():.2f} ± {scores.std(ddof=1):.2f}"


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


def check_picture(path: Path) -> None:
    """A PNG at 150 dpi with much white, much that is not, and a margin that nothing is cut off by."""
    image = Image.open(path)
    assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    grey = np.asarray(image.convert("L"))
    assert 0.02 < np.mean(grey < 250) < 0.7
    edges = (grey[0], grey[-1], grey[:, 0], grey[:, -1])
    assert all((edge == 255).all() for edge in edges)


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


def test_the_lines_of_figure_2_are_the_means() -> None:
    rows = KINDS["ratio"][0]
    (axis,) = figures.accuracy_by_ratio(sweep_of("ratio")).axes
    curves = {line.get_label(): line for line in axis.get_lines() if line.get_label()[0] != "_"}
    assert [*curves] == ["ERM", "CW-ERM, coreset moderate", "CW-ERM, coreset random"]
    assert axis.get_xscale() == "log"
    for method in ("moderate", "random"):
        line = curves[f"CW-ERM, coreset {method}"]
        means = [scores_of(rows, method="cw-erm", coreset=method, ratio=r).mean() for r in RATIOS]
        np.testing.assert_allclose(line.get_xdata(), RATIOS)
        np.testing.assert_allclose(line.get_ydata(), means)
    plain = scores_of(rows, method="erm").mean()
    np.testing.assert_allclose(curves["ERM"].get_ydata(), [plain, plain])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.1", "1", "10"]
    looks = {(line.get_linestyle(), line.get_marker()) for line in curves.values()}
    assert len(looks) == 3


def test_the_bars_of_figure_3_are_the_mean_seconds() -> None:
    first, second = figures.seconds_by_ratio(sweep_of("ratio")).axes
    rows = KINDS["ratio"][0]
    for axis, method, last in ((first, "moderate", 3), (second, "random", 2)):
        assert axis.get_title() == f"CW-ERM, coreset {method}"
        bars = {bar.get_label(): bar for bar in axis.containers}
        assert [*bars] == ["select", "reweight", "broadcast", "train"]
        below = np.zeros(len(RATIOS))
        for stage, container in bars.items():
            for place, ratio in enumerate(RATIOS):
                seconds = [
                    row[f"seconds_{stage}"]
                    for row in rows
                    if f"-{method}-{ratio}-" in row["trial"] and row["status"] == "done"
                ]
                assert len(seconds) == (last if ratio == 0.1 else 3)
                assert container[place].get_height() == pytest.approx(np.mean(seconds))
                assert container[place].get_y() == pytest.approx(below[place])
                below[place] += np.mean(seconds)


def luminance(color: Any) -> float:
    return float(np.dot(to_rgb(color), (0.299, 0.587, 0.114)))


def test_stages_differ_in_grey_and_in_hatch() -> None:
    colors, hatches = zip(*figures.STAGES.values(), strict=True)
    greys = sorted(map(luminance, colors))
    assert min(np.diff(greys)) > 0.1
    assert len(set(hatches)) == len(hatches)
    axis = figures.seconds_by_ratio(sweep_of("ratio")).axes[0]
    drawn = [(bars[0].get_facecolor()[:3], bars[0].get_hatch() or "") for bars in axis.containers]
    assert drawn == [(to_rgb(color), hatch) for color, hatch in figures.STAGES.values()]


def test_series_differ_without_colour() -> None:
    styles = [figure_style.style(position) for position in range(6)]
    for key in ("color", "marker", "linestyle"):
        assert len({str(style[key]) for style in styles}) == 6
    greys = [luminance(style["color"]) for style in styles]
    assert min(abs(np.diff(greys))) > 0.1
    assert all(abs(grey - luminance(figure_style.INK)) > 0.15 for grey in greys)


def texts(figure: Figure) -> list[Any]:
    figure.draw_without_rendering()
    axes_texts = [text for axis in figure.axes for text in axis.texts]
    return [text for text in axes_texts if text.get_text()]


def test_labels_of_lines_that_end_together_do_not_overlap() -> None:
    rows = [
        a_row({"coreset.method": method, "coreset.ratio": ratio}, 0, 0.9 + ratio)
        for method in ("moderate", "random", "herding", "k_center")
        for ratio in RATIOS
    ]
    sweep = read_sweep(a_description(KEYS, "ratio"), pa.Table.from_pylist(rows, SCHEMA))
    labels = texts(figures.accuracy_by_ratio(sweep))
    assert len(labels) == 4
    boxes = [Text.get_window_extent(label) for label in labels]  # without their arrows
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_the_legend_has_what_only_a_later_panel_shows() -> None:
    rows = [
        a_row({"method": "cw-erm", "data.source": source, "coreset.ratio": ratio}, 0, 0.9)
        for source in ("cifar10", "cifar100")
        for ratio in RATIOS
    ]
    rows.append(a_row({"method": "erm", "data.source": "cifar100"}, 0, 0.8))
    keys = ["method", "data.source", "coreset.ratio"]
    sweep = read_sweep(a_description(keys, "ratio"), pa.Table.from_pylist(rows, SCHEMA))
    drawn = figures.accuracy_by_ratio(sweep)
    (legend,) = drawn.legends
    assert [t.get_text() for t in legend.get_texts()] == ["CW-ERM", "ERM (uniform weights)"]
    first, second = drawn.axes
    assert first.get_ylim() != second.get_ylim()


def test_plain_training_is_a_line_across_all_backbones() -> None:
    (axis,) = figures.accuracy_by_backbone(sweep_of("backbones")).axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["tf_efficientnet_lite0", "vit_small_patch14_dinov2.lvd142m"]
    mean = np.mean([100 * row["test_accuracy"] for row in KINDS["backbones"][0][:3]])
    (line,) = [line for line in axis.get_lines() if line.get_label() == "ERM"]
    np.testing.assert_allclose(line.get_xdata(), [mean, mean])
    rows = {bar.get_label(): bar[0].get_ydata() for bar in axis.containers}
    assert not set(rows["W-ERM"]) & set(rows["CW-ERM"])


def test_a_panel_for_each_data_set() -> None:
    drawn = figures.accuracy_by_setting(sweep_of("robustness"))
    titles = [axis.get_title() for axis in drawn.axes]
    assert titles == ["clean", "40 % symmetric", "40 % flip", "long tail 1/50"]
    assert [len(axis.containers) for axis in drawn.axes] == [3, 3, 3, 3]


def test_figures_are_the_same_each_time() -> None:
    first, second = (
        figure_style.images(figures.accuracy_by_ratio(sweep_of("ratio"))) for _ in range(2)
    )
    assert first == second


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


def a_run(store: Path, method: str = "cw-erm", classes: int = 12) -> tuple[str, np.ndarray]:
    """A finished run in a store, its weights."""
    random = np.random.default_rng(0)
    folder = store / "runs" / "quick"
    train = store / "artifacts" / "train" / "key" / "attempt"
    folder.mkdir(parents=True)
    train.mkdir(parents=True)
    history = [
        {"epoch": e, "train_loss": 1 / (e + 1), "train_accuracy": 0.5 + 0.04 * e}
        | ({"test_loss": 0.9 / (e + 1), "test_accuracy": 0.5 + 0.03 * e} if e % 2 else {})
        for e in range(10)
    ]
    (train / "history.json").write_text(json.dumps(history))
    weights = random.gamma(4, 0.25, 500).astype(np.float32)
    columns = {"id": np.arange(500), "weight": weights}
    fields = table_schema("weights")
    table = pa.table(
        [pa.array(columns.get(f.name, np.zeros(500))).cast(f.type) for f in fields], fields
    )
    uris = {"train/history.json": "/former/store/artifacts/train/key/attempt/history.json"}
    if method == "cw-erm":
        pq.write_table(table, folder / "weights.parquet")
        uris["weights"] = "/former/store/artifacts/broadcast/key/attempt/weights.parquet"
    summary = {
        "name": "quick",
        "method": method,
        "control": "none",
        "seed": 0,
        "test_accuracy": 0.8123,
        "test_accuracy_top5": None,
        "train_accuracy": 0.9,
        "test_expected_calibration_error": 0.05,
        "test_per_class_accuracy": [*np.linspace(0.5, 0.99, classes - 1), None],
        "class_names": [f"<class {c}>" for c in range(classes)],
        "num_samples": 500,
        "num_test_samples": 100,
        "num_rejects": 0,
        "seconds": {"ingest": 4.0, "train": 30.5},
        "seconds_this_run": 40.0,
        "reused": ["ingest"],
        "artifacts": uris,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return str(folder), weights


def test_a_runs_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, weights = a_run(tmp_path)
    written = report(folder)
    names = [
        f"{name}.{kind}" for name in ("training", "weights", "classes") for kind in ("png", "svg")
    ]
    assert written == [f"{folder}/report/{name}" for name in [*names, "report.html"]]
    page = Path(written[-1]).read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    assert "<td class=text>test accuracy</td><td>81.23 %</td>" in page
    assert "<td class=text>&lt;class 11&gt;</td><td>-</td>" in page
    for name in names[::2]:
        check_picture(Path(folder, "report", name))
    assert "4.0 s, reused" in capsys.readouterr().out
    bars = run_page.weight_histogram(weights).axes[0].containers[0]
    assert sum(bar.get_height() for bar in bars) == len(weights)


def test_a_run_without_weights_has_no_histogram(tmp_path: Path) -> None:
    folder, _ = a_run(tmp_path, "erm")
    names = {Path(path).name for path in report(folder)}
    assert "training.png" in names
    assert "weights.png" not in names


def test_of_many_classes_the_figure_shows_the_lowest(tmp_path: Path) -> None:
    folder, _ = a_run(tmp_path, classes=101)
    caption, figure = run_page.read_run(folder).figures()["classes"]
    assert "the 30 lowest of 100" in caption
    (axis,) = figure.axes
    values = [bar.get_width() for bar in axis.containers[0]]
    np.testing.assert_allclose(values, 100 * np.linspace(0.5, 0.99, 100)[:30])


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^.*: neither sweep\.json nor summary\.json; give"):
        report(str(tmp_path))
    with pytest.raises(UserError, match="neither sweep"):
        report(str(tmp_path / "nowhere"))
    (tmp_path / "sweep.json").write_text(json.dumps(a_description(["method"])))
    with pytest.raises(UserError, match=r"no results\.parquet yet; let `cwerm sweep` finish"):
        report(str(tmp_path))
    rows = [a_row({}, seed, None, status="failed", error=REASON) for seed in range(2)]
    leave(open_storage(str(tmp_path)), rows, a_description(["method"]))
    with pytest.raises(
        UserError, match=r"none of 2 trials is done; the first says: train\.lr: "
    ) as e:
        report(str(tmp_path))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "report").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "backbones")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"^.*/file/table\.md: can't be written \(.*\); choose another"
    ):
        report(folder, tmp_path / "file")


def test_a_run_whose_history_is_gone(tmp_path: Path) -> None:
    folder, _ = a_run(tmp_path)
    (tmp_path / "artifacts" / "train" / "key" / "attempt" / "history.json").unlink()
    with pytest.raises(
        UserError, match=r"^.*/quick: its training history is no longer in the store"
    ):
        report(folder)
