"""Mistakes that need the data, the models or the cluster: found early, nothing changed."""

from __future__ import annotations

import functools
import shutil
import socket
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest
import ray
import timm
import torch
from commands import LITE0, Answer, Finished

import cwerm.algorithms.networks.models  # noqa: F401  registers resnet20
from cwerm.job.tree import parse_job
from cwerm.runtime.session.session import check_address

Cwerm = Callable[..., Answer]
Refused = Callable[..., None]


@functools.cache
def lite0() -> dict[str, torch.Tensor]:
    package, _, name = LITE0.removeprefix("package:").partition("/")
    with resources.as_file(resources.files(package) / name) as path:
        return torch.load(path, weights_only=True)


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield server.getsockname()[1]


# --- names: the cheap checks before Ray ------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["features.backbone=tf_eficientnet_lite0"], ["features.backbone", "'tf_efficientnet_lite0'"]),
        (["features.backbone=resnet18.no_such_tag"], ["features.backbone", "resnet18"]),
        (["features.backbone=qqqqqq"], ["features.backbone", "timm.list_models()"]),
        (["train.model=resnt20"], ["train.model", "'resnet20'"]),
        (["reweight.input=images", "reweight.model=resnt32"], ["reweight.model", "'resnet32'"]),
        (["coreset.method=moderat"], ["coreset.method", "moderate"]),
        (["broadcast.method=neerest"], ["broadcast.method", "nearest"]),
        (["data.source=fashion_minst"], ["data.source", "'fashion_mnist'"]),
        (["data.source=/no/such/folder"], ["data.source", "/no/such/folder", "check the path"]),
        (["data.test=/no/such/folder"], ["data.test", "/no/such/folder"]),
        (["data.source=ftp://host/x"], ["ftp", "s3://"]),
        (["features.weights=/no/weights.pth"], ["features.weights", "/no/weights.pth"]),
        (["features.weights=package:no_such_package/x.pth"], ["features.weights", "no_such_package"]),
        (["features.weights=package:torch/none.pth"], ["features.weights", "none.pth"]),
        (["features.image_size=1"], ["features.image_size"]),
        (["train.batch_size=3", "resources.workers=2"], ["train.batch_size", "2 workers", "at least 4"]),
        (["resources.address=nonsense"], ["resources.address", "'nonsense'", "HOST:PORT"]),
        (["resources.address=127.0.0.1:9"], ["resources.address", "127.0.0.1:9", "start one"]),
        (["resources.address=ray://127.0.0.1:9"], ["resources.address", "Ray Client"]),
    ],
    ids=lambda value: value[0][:40],
)  # fmt: skip
def test_names(refused: Refused, changes: list[str], words: list[str]) -> None:
    if changes[0] == "features.image_size=1":
        changes = [*changes, "features.backbone=vgg11", "features.weights=random"]
    refused(changes, *words)


@pytest.mark.timeout(60)
def test_an_address_where_no_ray_answers_is_given_up(refused: Refused, silent_server: int) -> None:
    address = f"127.0.0.1:{silent_server}"
    refused([f"resources.address={address}"], "resources.address", address, "start one")


def test_the_address_of_a_cluster_passes(ray_session: None) -> None:
    """The same probe finds a real cluster."""
    address = ray.get_runtime_context().gcs_address
    check_address(parse_job({"data": {"source": "sample"}, "resources": {"address": address}}))


def test_address_from_the_environment(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    refused([], "RAY_ADDRESS: ", "127.0.0.1:9", "unset RAY_ADDRESS")


# --- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(b"no checkpoint"), ["no readable checkpoint"]),
        (lambda path: path.write_bytes(b""), ["is empty"]),
        (lambda path: torch.save({"a.weight": torch.ones(3)}, path), ["does not fit"]),
        (lambda path: path.mkdir(), ["no file"]),
    ],
    ids=["text", "empty", "other model", "folder"],
)
def test_weights(
    refused: Refused, tmp_path: Path, spoil: Callable[[Path], object], words: list[str]
) -> None:
    path = tmp_path / "weights.pth"
    spoil(path)
    refused([f"features.weights={path}"], "features.weights", str(path), *words)


def test_weights_that_are_not_numbers(refused: Refused, tmp_path: Path) -> None:
    state = {name: tensor.detach().clone() for name, tensor in lite0().items()}
    next(iter(state.values()))[0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    refused([f"features.weights={tmp_path}/nan.pth"], "features.weights", "nan.pth", "NaN")


@pytest.mark.slow
def test_features_that_are_not_numbers(refused: Refused, ray_session: None, tmp_path: Path) -> None:
    """A negative variance: every weight is finite, so that only a worker can notice."""
    name = [name for name in lite0() if name.endswith("running_var")][-1]
    torch.save({**lite0(), name: -torch.ones(1280)}, tmp_path / "negative.pth")
    words = ["features", ": image ", "NaN", "check features.weights"]
    refused([f"features.weights={tmp_path}/negative.pth"], *words)


@pytest.mark.slow
def test_features_that_float16_can_not_hold(
    refused: Refused, ray_session: None, tmp_path: Path
) -> None:
    model = timm.create_model("resnet20")
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    torch.nn.init.constant_(norms[-1].bias, 1e6)
    torch.save(model.state_dict(), tmp_path / "large.pth")
    changes = ["features.backbone=resnet20", f"features.weights={tmp_path}/large.pth"]
    refused(changes, "features: image ", "infinite", "features.dtype=float32")


# --- storage ---------------------------------------------------------------------------------------


def test_storage_below_a_file(cwerm: Cwerm, finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    answer = cwerm("run", finished.job, "--storage", tmp_path / "file" / "store")
    answer.refused("storage", "file/store", "can't be written", "--storage")
    assert (tmp_path / "file").read_text() == "x"


def test_storage_of_an_unknown_kind(cwerm: Cwerm, finished: Finished) -> None:
    cwerm("run", finished.job, "--storage", "gs://bucket/x").refused("storage", "gs", "s3://")


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "listening",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["closed port", "silent port"],
)
def test_s3_endpoint_that_does_not_answer(
    cwerm: Cwerm,
    finished: Finished,
    monkeypatch: pytest.MonkeyPatch,
    silent_server: int,
    listening: bool,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    endpoint = f"http://127.0.0.1:{silent_server if listening else 9}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    answer = cwerm("run", finished.job, "--storage", "s3://bucket/prefix")
    answer.refused("storage", "s3://bucket/prefix", endpoint)


# --- artifacts -------------------------------------------------------------------------------------


def test_corrupt_artifact(cwerm: Cwerm, finished: Finished, tmp_path: Path) -> None:
    """A run that finds everything looks at sizes; what a stage reads must have its checksum."""
    store = tmp_path / "store"
    shutil.copytree(finished.store, store)
    (part, *_) = sorted(store.glob("artifacts/extract/*/*/features-00000.parquet"))
    whole = part.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    summary = (store / "runs" / "small" / "summary.json").read_bytes()
    other = ["stage", "select", finished.job, "coreset.scope=global"]
    for data, command in ((whole[:-1], ["run", finished.job]), (flipped, other)):
        part.write_bytes(data)
        answer = cwerm(*command, "--storage", store)
        folder = str(part.parent.parent)
        answer.refused("corrupt artifact", folder, part.name, "run `cwerm repair ")
        assert (store / "runs" / "small" / "summary.json").read_bytes() == summary
        assert part.read_bytes() == data


def test_stage_before_its_inputs(cwerm: Cwerm, finished: Finished, tmp_path: Path) -> None:
    earlier = {
        "extract": "ingest",
        "select": "ingest",
        "reweight": "ingest",
        "broadcast": "ingest",
        "train": "ingest",
    }
    for stage, missing in earlier.items():
        answer = cwerm("stage", stage, finished.job, "--storage", tmp_path / "store")
        answer.refused(f"{missing}: no artifact", f"`cwerm stage {missing} JOB` first")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
