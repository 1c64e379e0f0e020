"""Validation images: where they are from, their labels, and that tests wait for the end of a training."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changes import change

from cwerm.algorithms.training.ranks import Ranks
from cwerm.errors import UserError
from cwerm.job.tree import parse_job
from cwerm.pipeline import plan
from cwerm.runs.preflight import check_images
from cwerm.stages import common
from cwerm.stages.ingest.sources import plan_chunks
from cwerm.stages.outside import Outside
from cwerm.stages.train import loop_inputs
from cwerm.stages.train.loop import Worker
from cwerm.store.artifacts import ArtifactStore
from cwerm.terminal import console
from stages.conftest import Chain, chain_tree, run_stages

DRAWN = 80  # of 400, 8 a class


@pytest.fixture(scope="module")
def drawn(ray_session: None, parted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Ingest with a fifth of the training images as validation split."""
    tree = chain_tree(parted_data, tmp_path_factory.mktemp("drawn"))
    tree["data"]["validation_fraction"] = 0.2
    tree["coreset"]["meta"] = "none"
    tree |= {"method": "erm", "resources": {"workers": 1}}
    tree["train"] |= {"model": "small_cnn", "report_every": 2}
    return run_stages(parse_job(tree), "ingest")


def changed(chain: Chain, **changes: Any) -> Chain:
    tree = chain.job.model_dump()
    change(tree, changes)
    return Chain(plan(parse_job(tree)))


def paths_of(chain: Chain, table: str) -> list[str]:
    return chain.table("ingest", table).column("path").to_pylist()


def labels_of(chain: Chain, table: str) -> np.ndarray:
    stage = "ingest" if table.startswith("given") else "label"
    chain.run(stage)
    return common.column(chain.table(stage, table), "label")


def test_a_drawn_split_is_no_longer_trained_on(drawn: Chain, parted_data: Path) -> None:
    made = drawn.made["ingest"]
    tables = [paths_of(drawn, name) for name in ("images", "validation_images", "test_images")]
    assert [*map(len, tables)] == [400 - DRAWN, DRAWN, 100]
    assert len({*tables[0], *tables[1]}) == 400
    assert np.bincount(labels_of(drawn, "given_validation_labels")).tolist() == [8] * 10
    assert made.info["understood"][1] == (
        "train: train.parquet; validation: drawn, 20 % of each class; test: test.parquet"
    )
    ids, _ = drawn.training_set()
    assert ids.tolist() == [*range(400 - DRAWN)]


def test_its_labels_are_as_noisy_as_those_of_the_training(drawn: Chain) -> None:
    noisy = changed(drawn, data__noise="symmetric", data__noise_rate=0.4)
    noisy.run("ingest")
    said: list[str] = []
    with console.told_to(said.append):
        check_images(noisy.plan)
    given = labels_of(noisy, "given_validation_labels")
    wrong = int((labels_of(noisy, "validation_labels") != given).sum())
    assert 20 <= wrong <= 44  # 32 on average, deviation 4.4
    assert f"data.noise: {wrong} of 80 validation labels are wrong, too" in " ".join(said)
    assert np.array_equal(labels_of(noisy, "test_labels"), labels_of(noisy, "given_test_labels"))
    assert noisy.made["ingest"].key == drawn.made["ingest"].key


def test_a_persons_decisions_count_there(drawn: Chain, tmp_path: Path) -> None:
    given = labels_of(drawn, "given_validation_labels")
    paths, names = paths_of(drawn, "validation_images"), drawn.made["ingest"].info["class_names"]
    new = names[(int(given[3]) + 1) % 10]
    file = tmp_path / "corrections.csv"

    def decided(*rows: tuple[str, str, str]) -> Chain:
        with file.open("w", newline="") as opened:
            csv.writer(opened).writerows([("path", "decision", "new_label"), *rows])
        mine = changed(drawn, data__corrections=str(file))
        mine.run("ingest")
        return mine

    mine = decided((paths[3], "relabelled", new), (paths[7], "removed", ""))
    said: list[str] = []
    with console.told_to(said.append):
        check_images(mine.plan)
    assert said == ["corrections: 0 confirmed, 0 relabelled, 0 removed; 2 of validation images"]
    assert np.flatnonzero(labels_of(mine, "validation_labels") != given).tolist() == [3]
    removed = common.column(mine.table("label", "validation_labels"), "removed")
    assert np.flatnonzero(removed).tolist() == [7]
    with pytest.raises(UserError, match=r"data\.corrections: they remove all validation images"):
        decided(*((path, "removed", "") for path in paths)).run("label")


def test_the_test_images_are_read_once_at_the_end(drawn: Chain) -> None:
    reads: Counter[str] = Counter()

    class Counting(ArtifactStore):
        def read_part(
            self, artifact: Any, table: str, index: int, *columns: Any, **how: Any
        ) -> Any:
            reads[table] += index == 0
            return super().read_part(artifact, table, index, *columns, **how)

    store = Counting(drawn.store.storage)
    settings, inputs = drawn.plan["train"].settings, drawn.plan.inputs("train")
    worker = Worker(loop_inputs(settings, inputs, store), Ranks())
    for epoch in range(3):
        assert reads["test_images"] == 0
        worker.train_epoch(epoch)
    assert reads["test_images"] == reads["validation_images"] == reads["images"] == 1
    curve = [{name for name in epoch if "accuracy" in name} for epoch in worker.history]
    both = {f"{split}_accuracy" for split in ("train", "validation", "test")}
    assert [both & names for names in curve] == [
        {"train_accuracy"}, both - {"test_accuracy"}, both,
    ]  # fmt: skip


def own(tmp_path: Path, *splits: str) -> str:
    for split in splits:
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(f"{split} {name}".encode())
    return str(tmp_path / "data")


def sources_of(**data: Any) -> dict[str, tuple[str, str]]:
    """By table the role and the split of the source that its images are of."""
    items = plan_chunks(Outside(parse_job({"data": data})), 100)
    return {table: (role, chunk.split) for table, role, chunk in items}


def test_a_split_of_the_source_is_used(tmp_path: Path) -> None:
    source = own(tmp_path, "train", "val", "test")
    expected = {"images": ("source", "train"), "test_images": ("source", "test")}
    assert sources_of(source=source, validation_fraction=0.2) == expected | {
        "validation_images": ("source", "val")
    }
    named = {"validation_images": ("validation", "val")}
    assert sources_of(source=source, validation=source) == expected | named
    other = {"validation_images": ("validation", "train")}
    assert sources_of(source=source, validation=f"{source}/val") == expected | other


def test_the_only_split_is_for_tests_unless_it_is_asked_for(tmp_path: Path) -> None:
    source = own(tmp_path, "train", "val")
    train = {"images": ("source", "train")}
    assert sources_of(source=source) == train | {"test_images": ("source", "test")}
    validation = {"validation_images": ("validation", "test")}
    assert sources_of(source=source, validation=f"{source}/") == train | validation


@pytest.mark.parametrize(
    ("splits", "data", "words"),
    [
        ((), {"validation": ""}, "holds the training images"),
        (("train", "test"), {"validation": "test", "test": "test"}, "holds the test images"),
    ],
)
def test_the_same_images_are_refused(
    tmp_path: Path, splits: tuple[str, ...], data: dict[str, str], words: str
) -> None:
    source = own(tmp_path, *splits or ("",))
    given = {key: f"{source}/{value}" for key, value in data.items()}
    with pytest.raises(UserError, match=rf"^data\.validation: .*{words}.*validation_fraction"):
        sources_of(source=source, **given)
