"""The run folder ``runs/<name>/``: the resolved job, the summary, the weights, and their table."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cwerm.errors import UserError
from cwerm.runs.held_out import JUDGED, held_out_scores
from cwerm.runs.summary import load_summary
from cwerm.runs.table import print_table
from cwerm.stages.plan import Plan, StageResult
from cwerm.store.artifacts import Artifact, File
from cwerm.store.beside import WriteBehind
from cwerm.store.storage import at_once, open_storage
from cwerm.suspects.show import FILES, PAGE, show
from cwerm.terminal import console

if TYPE_CHECKING:
    import pyarrow as pa

    from cwerm.runtime.capacity import Size


@dataclass(frozen=True)
class RunResult:
    """What a run gave: its folder's URI, and ``summary.json`` as a dictionary."""

    folder: str
    summary: dict[str, Any]


class RunFolder:
    """Writes one run's files, at its end: an earlier run of that name stays whole until then.

    The summary comes last, so that a run folder with one is complete.
    """

    def __init__(self, plan: Plan) -> None:
        self.job, self.plan, self.store = plan.job, plan, plan.store
        self.path = f"runs/{self.job.name}"
        self.started = time.perf_counter()

    def show_suspects(self) -> None:
        """Write what labels look wrong, and print where; what is there of the same weights stays."""
        storage = self.store.storage
        page = f"{self.path}/{PAGE}"
        made = {name: uri for name, uri in self._uris(self.plan.made).items() if name in JUDGED}
        if self._finished() != made or not storage.stat(page):
            files = show(self.plan).files
            at_once(storage.delete, [f"{self.path}/{name}" for name in FILES if name not in files])
            beside = {f"{self.path}/{name}": files[name] for name in FILES if name in files}
            last = beside.pop(page)  # it tells that all are there
            at_once(storage.write_bytes, beside.keys(), beside.values())
            storage.write_bytes(page, last)
        console.out.print(f"{'':19}  {storage.uri(page)}", soft_wrap=True, markup=False)

    def _finished(self) -> dict[str, Any]:
        """Where the judgements lie of the run that finished in this folder."""
        try:
            found = load_summary(self.store.storage.uri(self.path))["artifacts"]
        except UserError:
            return {}  # there is none, or a damaged one
        return {name: uri for name, uri in found.items() if name in JUDGED}

    def finish(self, results: dict[str, StageResult], size: Size | None = None) -> RunResult:
        """Write weights and summary, and print where everything lies.

        ``size`` is what the run was sized to, None where it had nothing to compute.
        """
        from cwerm.runs.weights_file import remove_weights, write_weights

        artifacts = {name: result.artifact for name, result in results.items()}
        storage = self.store.storage
        storage.delete(f"{self.path}/summary.json")
        behind = WriteBehind()
        behind.write(storage.write_bytes, f"{self.path}/job.yaml", self.job.to_yaml().encode())
        if "broadcast" in artifacts:
            write_weights(self.path, self.store, artifacts["broadcast"], artifacts["ingest"])
        else:
            remove_weights(storage, self.path)
        if "broadcast" not in artifacts or not self.job.believes:
            # of another job that had this folder
            at_once(storage.delete, [f"{self.path}/{name}" for name in FILES])
        summary = self._summary(artifacts, results)
        summary["resources"] = size.record() if size else None
        if "broadcast" in artifacts:
            summary["weights"] = weight_scores(self.plan)
            summary["found"] = artifacts["broadcast"].info.get("found", [])
        behind.finish()
        self._write_json("summary.json", summary)
        folder = storage.uri(self.path)
        print_table(summary, folder)
        return RunResult(folder, summary)

    def _summary(
        self, artifacts: dict[str, Artifact], results: dict[str, StageResult]
    ) -> dict[str, Any]:
        ingested, trained = artifacts["ingest"], artifacts["train"].info
        changed = self.plan.execute("label").artifact.info.get("corrections", {})
        return {
            "name": self.job.name,
            "method": self.job.method,
            "control": self.job.control,
            "seed": self.job.seed,
            "targets": trained["targets"],
            "validation_accuracy": trained.get("validation_accuracy"),
            "validation_accuracy_top5": trained.get("validation_accuracy_top5"),
            "test_accuracy": trained["test_accuracy"],
            "test_accuracy_top5": trained.get("test_accuracy_top5"),
            "train_accuracy": trained["train_accuracy"],
            "train_loss": trained["train_loss"],
            "hardware": _hardware(trained),
            "test_expected_calibration_error": trained["test_expected_calibration_error"],
            "test_per_class_accuracy": trained["test_per_class_accuracy"],
            "class_names": ingested.info["class_names"],
            "num_samples": ingested.rows("images"),
            "num_validation_samples": _kept(ingested, "validation", changed),
            "num_test_samples": _kept(ingested, "test", changed),
            "corrections": changed or None,
            "num_rejects": ingested.rows("rejects"),
            "seconds": {name: round(a.seconds, 3) for name, a in artifacts.items()},
            "seconds_this_run": round(time.perf_counter() - self.started, 3),
            "reused": [name for name, result in results.items() if result.reused],
            "artifacts": self._uris(self.plan.made),
            **held_out_scores(self.plan),
        }

    def _uris(self, artifacts: dict[str, Artifact]) -> dict[str, Any]:
        """Addresses by name: of each table its parts (one URI where it is one file), of each file."""
        uris: dict[str, Any] = {}
        for artifact in artifacts.values():

            def address(file: File, artifact: Artifact = artifact) -> str:
                return self.store.uri(artifact, file)

            for name, parts in artifact.tables.items():
                uris[name] = address(parts[0]) if len(parts) == 1 else [*map(address, parts)]
            for name, file in artifact.files.items():
                uris[f"{artifact.stage}/{name}"] = address(file)
        if "train/model.safetensors" in uris:
            uris["model"] = uris.pop("train/model.safetensors")
        return uris

    def _write_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, indent=1).encode()
        self.store.storage.write_bytes(f"{self.path}/{name}", text)


def _hardware(trained: dict[str, Any]) -> str:
    """What its last epoch was trained on."""
    workers, threads = trained["workers"], trained["threads"]
    each = f"{threads} thread{'s' if threads > 1 else ''}{' each' if workers > 1 else ''}"
    return f"{workers} worker{'s' if workers > 1 else ''} on {trained['device']}, {each}"


def _kept(images: Artifact, split: str, corrections: dict[str, int]) -> int:
    """Images of a held-out split, without what a person removed."""
    table = f"{split}_images"
    if table not in images.tables:
        return 0
    return images.rows(table) - corrections.get(f"removed_{split}", 0)


def weight_scores(plan: Plan) -> dict[str, float | None]:
    """What the weights that training used do to the data set, and where true labels are known, see.

    ``effective_sample_size`` is a share of n, ``class_weight_ratio`` the heaviest class over the
    lightest, None where a class weighs nothing.
    """
    import numpy as np

    from cwerm.algorithms import detection
    from cwerm.stages import common, train

    store = plan.store
    ids, weights = train.training_set(plan["train"].settings, plan.inputs("train"), store)
    labels = common.labels_of(store, plan.execute("label").artifact)[ids]
    ratio = detection.class_weight_ratio(weights, labels)
    table = store.read(plan.made["broadcast"], "weights", ["id", "quality"]).sort_by("id")
    judged = not table.column("quality").null_count
    sees = common.column(table, "quality")[ids] if judged else weights
    scores = {
        "effective_sample_size": detection.effective_sample_size(weights),
        "class_weight_ratio": ratio if np.isfinite(ratio) else None,
    }
    clean = common.clean_labels_of(store, plan.execute("label").artifact)
    if clean is not None:
        wrong = clean[ids] != labels
        scores["share_mislabelled"] = float(np.mean(wrong))
        if wrong.any() and not wrong.all():
            scores["auroc"] = detection.auroc(sees, wrong)
            scores["precision_at_errors"] = detection.precision_at_errors(sees, wrong)
    return scores


def load_weights(run: str | RunResult) -> pa.Table:
    """The table of weights of a finished run, given its folder or its result; all of it is in memory.

    Columns: id, label, weight (mean 1), neighbor_id, neighbor_distance, neighbor_label; and of the
    posterior quality (the probability that the label is right), suggested_label,
    suggestion_probability and duplicate_group (the same for images that are nearly the same, -1 for none),
    null where something else was learned. Beside them, what the source's table has of each image: columns
    of plain values, under their own names, or with ``source_`` before one of those here.

    Raises:
        UserError: the folder holds no weights, or damaged ones.
    """
    import numpy as np

    from cwerm.runs.weights_file import read_weights

    folder = run.folder if isinstance(run, RunResult) else str(run)
    try:
        table = read_weights(open_storage(folder))
        ids = np.sort(table.column("id").to_numpy())
        if not len(ids) or not np.array_equal(ids, np.arange(len(ids))):
            raise ValueError("its ids are not those of samples, each once")
    except UserError:
        raise  # a storage that can't be reached says so itself
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder}: no weights.parquet; give the folder of a finished run of method cw-erm"
        ) from None
    except (ValueError, KeyError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition("; ")[0]
        raise UserError(
            f"{folder}: weights.parquet can't be read ({reason}); run the job again, which takes up "
            "what is in the store"
        ) from None
    return table
