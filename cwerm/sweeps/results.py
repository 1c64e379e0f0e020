"""What a sweep leaves: ``results.parquet``, TensorBoard's HParams, and the best job, ready to run."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from cwerm.job.tree import Job, parse_job
from cwerm.pipeline import PIPELINE
from cwerm.reports.comparison import read_sweep
from cwerm.reports.points import setting
from cwerm.store.storage import Storage
from cwerm.sweeps.earlier import Earlier
from cwerm.sweeps.file import EPOCH_METRICS, TEST_METRICS, Point, Sweep
from cwerm.sweeps.trial import Records, Trials

STAGES = tuple(stage.name for stage in PIPELINE if not stage.in_passing)
SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("seed", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("epochs", pa.int64()),
        *((name, pa.float64()) for name in (*EPOCH_METRICS, *TEST_METRICS)),
        ("seconds_total", pa.float64()),
        *((f"seconds_{stage}", pa.float64()) for stage in STAGES),
        ("auroc", pa.float64()),
        ("effective_sample_size", pa.float64()),
        ("started", pa.float64()),
        ("ended", pa.float64()),
        ("hardware", pa.string()),
        ("reused", pa.list_(pa.string())),
        ("folder", pa.string()),
        ("job", pa.string()),
    ]
)

BEST = (
    "# With data.validation_fraction=0 also the images of a drawn validation split are trained on."
)


def write_results(
    storage: Storage,
    folder: str,
    settings: Sweep,
    trials: Trials,
    configs: list[dict[str, Any]],
    earlier: Earlier,
    results: list[Any],
) -> bool:
    """Write all of it; whether any trial ended well.

    ``results`` are Ray Tune's, for the trials that left no record of their own.
    """
    records = Records(parse_job(trials.base), trials.name)
    rows = [row for point in earlier.ended for row in _rows(point, None, {}, trials, records)]
    for result in results:
        config, metrics = result.config or {}, result.metrics or {}
        rows += _rows(config.get("point", config), result.error, metrics, trials, records)
    order = [job.name for config in configs for job in trials.jobs(config)]
    rows.sort(key=lambda row: order.index(row["trial"]) if configs else 0)
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.write_bytes(f"{folder}/results.parquet", buffer.getvalue())
    done = [row for row in rows if row["status"] == "done"]
    _write_hparams(storage, folder, settings, done)
    description = json.loads(storage.read_bytes(f"{folder}/sweep.json"))
    best = read_sweep(description, table).best
    if best is not None:
        job = {**best.job, "name": f"{trials.name}-best"}
        text = yaml.safe_dump(job, sort_keys=False)
        if best.job["data"]["validation_fraction"]:
            text = f"{BEST}\n{text}"
        storage.write_bytes(f"{folder}/best.yaml", text.encode())
    return bool(done)


def record_stopped(trials: Trials, config: dict[str, Any], metrics: dict[str, Any] | None) -> None:
    """Record a trial that the scheduler has stopped, which has ended before it was done."""
    if not trials.reports_epochs or not (metrics or {}).get("epochs"):
        return
    records = Records(parse_job(trials.base), trials.name)
    for job in trials.jobs(config.get("point", config)):
        record = records.read(job.name)
        if record is None or record["status"] == "begun":
            records.write(job.name, _stopped(job, None, metrics or {}))


def _rows(
    point: Point, error: Any, metrics: dict[str, Any], trials: Trials, records: Records
) -> list[dict[str, Any]]:
    """A row for each seed of a point."""
    rows = []
    for job in trials.jobs(point):
        record = records.read(job.name)
        unknown = record is None or record["status"] == "begun"
        if record is None or unknown or (record["status"] == "failed" and not error):
            record = _stopped(job, error, metrics)
        rows.append({field.name: record.get(field.name) for field in SCHEMA})
    return rows


def _stopped(job: Job, error: Any, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "trial": job.name,
        "seed": job.seed,
        "status": "failed" if error else "stopped",
        "error": " ".join(str(error).split())[-300:] if error else None,
        "job": json.dumps(job.model_dump()),
        **{name: metrics.get(name) for name in ("epochs", *EPOCH_METRICS)},
    }


def _write_hparams(
    storage: Storage, folder: str, settings: Sweep, rows: list[dict[str, Any]]
) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    for row in rows:
        job = json.loads(row["job"])
        chosen = {key: setting(job, key) for key in [*settings.keys, "seed"]}
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in chosen.items()
        }
        numbers = {name: row[name] for name in settings.metrics if row[name] is not None}
        with tempfile.TemporaryDirectory() as place:
            metrics = {f"result/{name}": value for name, value in numbers.items()}
            with SummaryWriter(place) as writer:  # its add_hparams would make a second file
                for summary in hparams(plain, metrics):
                    writer.file_writer.add_summary(summary)
                for name, value in metrics.items():
                    writer.add_scalar(name, value)
            (file,) = Path(place).iterdir()
            # of one name, so that a sweep run again replaces it
            storage.upload(file, f"{folder}/events/{row['trial']}/events.out.tfevents.hparams")
