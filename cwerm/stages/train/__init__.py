"""Train: weighted empirical risk minimisation (paper, Eq. 2) by Ray Train and DDP.

Checkpoints, one an epoch, and TensorBoard events lie in the run folder. Ray Train finds them again by
name, and the name is the artifact's key: an interrupted run goes on, and a changed job starts anew.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from rich.filesize import decimal

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.runtime.board import progress_board
from cwerm.runtime.training import checkpoints, saved_state
from cwerm.runtime.training.ranks import checkpoints_folder, run_on_ranks
from cwerm.runtime.worker_errors import user_errors
from cwerm.stages import common
from cwerm.stages.classifiers import classifier_size, savable
from cwerm.stages.stage import Context, Inputs, Stage
from cwerm.stages.train.limits import asked_size, check_batch, is_streamed, schedule_of
from cwerm.stages.train.settings import TrainSettings
from cwerm.stages.train.targets import chosen_targets, make_targets
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.beside import WriteBehind
from cwerm.store.writing import Writer
from cwerm.terminal import console

TARGETS = {
    "given": "given, each label times its weight",
    "soft": "soft, how probable each class is",
    "relabel": "relabel, another class where that is sure, times its weight",
}
PERMUTATION_STREAM = 21  # apart from what else is drawn from the seed
STANDARD = "standard."  # before the names of what features are standardised by, beside a head's own


def _needs(job: Job) -> tuple[str, ...]:
    needed = ["ingest", "label"]
    if job.method != "erm":
        needed.append("select" if job.trains_on_coreset else "broadcast")
    if job.train.input == "features":
        needed += ["extract", "embed_val", "embed_test"]
    return tuple(needed)


def _run(settings: TrainSettings, inputs: Inputs, context: Context) -> Artifact:
    """Train the classifier on the method's samples, evaluate it on the test images."""
    from cwerm.stages.train.loop import train_worker

    writer, images = context.writer, inputs["ingest"]
    check_test(images)
    targets = chosen_targets(settings, inputs)
    if settings.targets != "given":
        console.note(f"train.targets: {TARGETS[targets]}")
    check_batch(settings, images, context)
    read = loop_inputs(settings, inputs, context.store)
    tell_of_streaming(settings, read)
    epochs = schedule_of(settings, read["samples_per_epoch"]).epochs
    kept = context.limits["train.keep_checkpoints"]
    events = f"runs/{context.name}/events/{context.name}"  # as TensorBoard calls the run
    folder = checkpoints_folder(context, writer.key)
    with progress_board(epochs, "train") as board, user_errors("train.batch_size"):
        run_on_ranks(
            train_worker,
            {
                **read,
                "checkpoint_minutes": context.limits["train.checkpoint_minutes"],
                "weights": context.outside.train_weights_address,
                "s3": context.s3,
                "events": events,
                "board": board,
                "checkpoints": folder,
            },
            context,
            context.store,
            stage="train",
            name=writer.key,
            keep_checkpoints=max(checkpoints.KEPT, kept),
            elastic=True,
        )
    made = _commit(settings, epochs, writer, images, folder, targets)
    if kept <= checkpoints.KEPT:
        checkpoints.forget(writer.storage, folder)
    return made


MUCH_UNMIXED = 0.1  # of the samples


def tell_of_streaming(settings: TrainSettings, read: dict[str, Any]) -> None:
    """Say where images are more than is held, and what is mixed then."""
    images: Artifact = read["images"]
    number, side = len(read["samples"]), read.get("size")
    if side is None or not is_streamed(settings, number, side):
        return
    from cwerm.algorithms.training.streaming.order import parts_mixed, share_unmixed

    parts = len(images.tables["images"])
    whole, most = decimal(number * 3 * side**2), decimal(settings.memory_bytes or 0)
    console.note(
        f"train: {whole} of pixels, over train.memory_bytes ({most}), are streamed: "
        f"{min(parts, parts_mixed(settings.window or 1))} of {parts} parts are mixed at a time (train.window)"
    )
    ends = np.cumsum([part.rows for part in images.tables["images"]])
    sizes = np.diff(np.searchsorted(read["samples"], ends), prepend=0)
    lacking = share_unmixed(read["targets"].labels, sizes, settings.window or 1)
    if lacking > MUCH_UNMIXED:
        console.note(
            f"train: images of a class lie together in the source, and what is mixed at a time lacks the "
            f"classes of {lacking:.0%} of all images: raise train.window, or shuffle the rows of the source"
        )


def check_test(images: Artifact) -> None:
    """Refuse to train where there is nothing to test on.

    Raises:
        UserError: there are no test images.
    """
    if not images.rows("test_images"):
        raise UserError(
            "data.test_fraction: 0 leaves no test images, and a training is tested; draw some, such as "
            "0.1, or give data.test"
        )


def loop_inputs(settings: TrainSettings, inputs: Inputs, store: ArtifactStore) -> dict[str, Any]:
    """What the training loop reads, on any number of workers."""
    read: dict[str, Any]
    images = inputs["ingest"]
    samples, weights = training_set(settings, inputs, store)
    left_out = settings.held_out.left_out(store, inputs["label"], images.info["class_names"])
    if settings.input == "features":
        read = {name: inputs[name] for name in ("extract", "embed_val", "embed_test")}
    else:
        asked = asked_size(settings, images)
        read = {"size": classifier_size("train", settings.model, asked)}
    return {
        "settings": settings,
        "store": store,
        "images": images,
        "labels_in_use": inputs["label"],
        "samples": samples,
        "targets": make_targets(settings, inputs, store, samples, weights),
        "samples_per_epoch": images.rows("images") - len(left_out),
        **read,
    }


def training_set(
    settings: TrainSettings, inputs: Inputs, store: ArtifactStore
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the samples that the method trains on, ascending, and their float32 weights.

    All but the meta set and what a person removed, or the coreset. The weights are those of the broadcast,
    of mean 1 over the data set, changed as ``control`` says; without reweighting they are 1.
    """
    if "select" in inputs:
        coreset = store.read(inputs["select"], "coreset", ["id"])
        ids = common.column(coreset, "id")
        return ids, np.ones(len(ids), dtype=np.float32)
    images = inputs["ingest"]
    left_out = settings.held_out.left_out(store, inputs["label"], images.info["class_names"])
    ids = np.setdiff1d(np.arange(images.rows("images")), left_out)
    if "broadcast" not in inputs or settings.control == "constant":
        return ids, np.ones(len(ids), dtype=np.float32)
    table = store.read(inputs["broadcast"], "weights", ["id", "weight"])
    weights = np.empty(images.rows("images"), dtype=np.float32)
    weights[common.column(table, "id")] = common.column(table, "weight")
    if settings.control == "permuted":
        random = np.random.default_rng([settings.seed, PERMUTATION_STREAM])
        return ids, random.permutation(weights[ids])
    return ids, weights[ids]


def _commit(
    settings: TrainSettings,
    epochs: int,
    writer: Writer,
    images: Artifact,
    folder: str,
    targets: str,
) -> Artifact:
    """Publish the last checkpoint's model with its metrics."""
    from safetensors.torch import save

    found = checkpoints.find(writer.storage, folder, console.note)
    whole = [saved for saved in found if saved.epochs == epochs]
    _, state = next(saved_state.load(writer.storage, whole, console.note), (None, None))
    if state is None or len(state["history"]) != epochs or not state["predictions"]:
        raise UserError(
            f"train: its last checkpoint in '{writer.storage.uri(folder)}' can't be read; run the same "
            "command again to go on from the one before"
        )
    last = state["history"][-1]
    description = {
        "model": settings.model,
        "class_names": images.info["class_names"],
        "full_scale": images.info["full_scale"],
    }
    tensors = state.get("average", state["model"])
    if settings.features is None:
        description |= state["input"]
    else:
        description["features"] = settings.features.model_dump()
        tensors = {**tensors, **{f"{STANDARD}{k}": value for k, value in state["input"].items()}}
    metadata = {"cwerm": json.dumps(description)}  # one key, as safetensors shuffles several
    model = save(savable(tensors), metadata=metadata)
    history = json.dumps(state["history"], indent=1).encode()
    behind = WriteBehind()
    behind.write(writer.write_files, {"model.safetensors": model, "history.json": history})
    trained = sum(epoch["seconds"] for epoch in state["history"])
    columns = (state["predictions"][name].numpy() for name in ("id", "predicted", "probability"))
    rows = common.table("test_predictions", *columns)
    tables = {"test_predictions": [writer.write_part("test_predictions", 0, rows)]}
    behind.finish()
    return writer.commit(tables, {**last, "targets": targets}, least_seconds=trained)


train = Stage("train", 9, _needs, TrainSettings.of, _run)
