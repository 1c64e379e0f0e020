"""Made-up results of sweeps, with known numbers."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cwerm.job.file import set_key
from cwerm.job.tree import parse_job
from cwerm.reports.comparison import SweepResults, read_sweep
from cwerm.store.storage import Storage, open_storage
from cwerm.sweeps.results import SCHEMA

STAGES = ("ingest", "extract", "select", "reweight", "broadcast", "train")
SECTIONS = ("data", "features", "coreset", "reweight", "broadcast", "train", "resources")


def a_job(settings: dict[str, Any]) -> dict[str, Any]:
    """A whole resolved job."""
    tree: dict[str, Any] = {"data": {"source": "fashion_mnist"}}
    for key, value in settings.items():
        set_key(tree, key, value, SECTIONS)
    return parse_job(tree).model_dump()


def a_row(
    settings: dict[str, Any],
    seed: int,
    accuracy: float | None,
    seconds: Sequence[float | None] = (4.0, None, None, None, None, 30.0),
    status: str = "done",
    error: str | None = None,
) -> dict[str, Any]:
    """A row of results.parquet."""
    name = f"{'-'.join(str(v) for v in settings.values())}-{seed}".replace("/", "-")
    job = a_job(settings) | {"seed": seed, "name": name, "storage": f"store-{seed}"}
    done = status == "done"
    return {
        "trial": name,
        "seed": seed,
        "status": status,
        "error": error,
        "epochs": 10 if done else None,
        "test_accuracy": accuracy,
        "test_accuracy_top5": None,
        "seconds_total": sum(s for s in seconds if s is not None) if done else None,
        **{f"seconds_{k}": s for k, s in zip(STAGES, seconds, strict=True)},
        "auroc": None,
        "effective_sample_size": None,
        "started": 100.0 * seed,
        "ended": 100.0 * seed + 90,
        "hardware": "2 workers on a processor, 1 thread each",
        "reused": [],
        "folder": f"store/runs/{name}",
        "job": json.dumps(job),
    }


def a_description(keys: Sequence[str], report: str | None = None, **changes: Any) -> dict[str, Any]:
    """A sweep.json."""
    return {
        "name": "study",
        "report": report,
        "metric": "test_accuracy",
        "mode": "max",
        "baseline": {"method": "erm"},
        "keys": [*keys],
    } | changes


def a_sweep(rows: list[dict[str, Any]], *keys: str, **changes: Any) -> SweepResults:
    return read_sweep(a_description(keys, **changes), pa.Table.from_pylist(rows, SCHEMA))


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


def sweep_of(kind: str) -> SweepResults:
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


def check_picture(path: Path) -> None:
    """A PNG at 150 dpi with much white, much that is not, and a margin that nothing is cut off by."""
    image = Image.open(path)
    assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    grey = np.asarray(image.convert("L"))
    assert 0.02 < np.mean(grey < 250) < 0.7
    edges = (grey[0], grey[-1], grey[:, 0], grey[:, -1])
    assert all((edge == 255).all() for edge in edges)
