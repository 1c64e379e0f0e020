"""Jobs sent to a real Ray head through its job server, which wants a token."""

from __future__ import annotations

import json
import shutil
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli.commands import Answer, process, start, write_job

from cluster.head import TOKEN, Head, ray_head
from cwerm.errors import UserError
from cwerm.job.tree import Job, parse_job
from cwerm.runtime.session.cluster import check_gpus, difference
from cwerm.submission.package import JOB_FILE, pack, shipped_job


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head(cpus=4) as started:
        yield started


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # of another cluster: --address goes first


def tiny(folder: Path, **data: Any) -> Path:
    tree = {
        "name": "tiny",
        "method": "erm",
        "storage": str(folder / "store"),
        "data": {"rows_per_part": 200, **data},
        "coreset": {"meta": "hold_out", "meta_per_class": 2},
        "train": {"model": "resnet20", "epochs": 1, "batch_size": 50},
        "resources": {"workers": 1, "address": "10.0.0.1:6379"},
    }
    return write_job(folder, tree)


# --- on the cluster --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_with_its_data_runs_to_the_end(
    head: Head, token: None, small_data: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(small_data, project / "images")
    job = tiny(tmp_path, source=f"{project}/none")
    with start(
        *("submit", job, "data.source=images", "--working-dir", ".", "--address", head.dashboard),
        cwd=project,
    ) as running:
        out, err = running.communicate(timeout=400)
    assert (running.returncode, err) == (0, ""), (out, err)
    assert "test accuracy" in out
    folder = tmp_path / "store" / "runs" / "tiny"
    assert json.loads((folder / "summary.json").read_text())["num_samples"] == 400
    ran = yaml.safe_load((folder / "job.yaml").read_text())
    assert ran["data"]["source"] == "./images"
    assert ran["resources"]["address"] is None


@pytest.mark.slow
def test_a_failing_job_gives_its_exit_code(head: Head, token: None, tmp_path: Path) -> None:
    answer = process("submit", tiny(tmp_path, source="/no/such"), "--address", head.dashboard)
    assert (answer.code, answer.err) == (2, "")
    assert "cwerm: data.source: '/no/such' does not exist" in answer.out


@pytest.mark.slow
def test_detached_and_no_longer_followed(head: Head, token: None, tmp_path: Path) -> None:
    job = tiny(tmp_path, source="sample")
    answer = process("submit", job, "--address", head.dashboard, "--detach")
    answer.succeeded()
    assert head.jobs(answer.out.strip())["metadata"]["name"] == "tiny"
    assert head.jobs(f"{answer.out.strip()}/stop", "POST")["stopped"]

    with start("submit", job, "--address", head.dashboard) as running:
        assert running.stdout is not None
        identifier = running.stdout.readline().split()[1]
        while "Running entrypoint" not in running.stdout.readline():
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "")
    assert f"ray job stop {identifier} --address {head.dashboard}" in out
    assert head.jobs(identifier)["status"] == "RUNNING"
    assert head.jobs(f"{identifier}/stop", "POST")["stopped"]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["fedcba9876543210" * 4, None])
def test_a_wrong_token(
    head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str | None
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token" if wrong else "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", wrong or TOKEN)
    answer = process("submit", tiny(tmp_path, source="sample"), "--address", head.dashboard)
    answer.refused("--address", head.dashboard, "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN")
    answer = process("doctor", "--address", head.address)
    assert f"resources.address: the cluster at '{head.address}' wants its token" in answer.out


@pytest.mark.slow
def test_workers_that_can_not_import_cwerm(
    head: Head, token: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A broken cwerm comes first on the workers' path, by the variable that Ray Jobs sets, too."""
    (tmp_path / "broken" / "cwerm").mkdir(parents=True)
    (tmp_path / "broken" / "cwerm" / "__init__.py").write_text("import no_such_package\n")
    environment = {"env_vars": {"PYTHONPATH": str(tmp_path / "broken")}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": environment}))
    arguments = ("run", tiny(tmp_path, source="sample"), "--address", head.address)
    with start(*arguments, cwd=tmp_path) as running:  # workers look in the driver's folder first
        out, err = running.communicate(timeout=400)
    answer = Answer(running.returncode, out, err)
    answer.refused("resources.address: node", "no_such_package", "can't be imported there")


# --- before it -------------------------------------------------------------------------------------


def test_what_differs_between_two_processes() -> None:
    own = {"Python": "3.11.9", "Ray": "2.60.0", "cwerm": "0.1.0"}
    assert difference(own, {**own, "Python": "3.11.2"}) is None
    for name, other in (("Python", "3.12.9"), ("Ray", "2.59.0"), ("cwerm", "0.2.0")):
        told = difference(own, {**own, name: other})
        assert told is not None
        assert told.startswith(f"it has {name} {other}, here {own[name]}; ")


def test_more_workers_than_gpus() -> None:
    for workers, gpus in (("auto", 0), ("auto", 2), (2, 2), (4, 0)):
        check_gpus(workers, gpus)
    with pytest.raises(
        UserError, match=r"^resources.workers: 4 workers .* 2 are there; .* at most 2"
    ):
        check_gpus(4, 2)


def job(**changes: str) -> Job:
    tree: dict[str, Any] = {"storage": "s3://b/x", "data": {"source": "sample"}, "features": {}}
    for key, value in changes.items():
        section, _, last = key.rpartition("__")
        (tree[section] if section else tree)[last] = value
    return parse_job(tree)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("data.source", "images"),
        ("data.source", "file://images"),
        ("data.source", "../images"),
        ("data.test", "images/test"),
        ("data.trusted", "./clean"),
        ("data.root", "mnist"),
        ("features.weights", "weights.pth"),
    ],
)
def test_a_relative_path_needs_a_working_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, path: str
) -> None:
    project, other = tmp_path / "project", tmp_path / "other"
    other.mkdir()
    place = project / path.removeprefix("file://").removeprefix("../")
    place.mkdir(parents=True)
    monkeypatch.chdir(project)
    given = job(**{key.replace(".", "__"): path})
    for working_dir in (None, other):
        with pytest.raises(UserError, match=f"^{key}: '{path}' is a path on this machine"):
            shipped_job(given, working_dir)
    if path.startswith("../"):
        return
    section, name = key.split(".")
    shipped = getattr(getattr(shipped_job(given, Path()), section), name)
    assert (project / shipped).resolve() == place.resolve()
    above = getattr(getattr(shipped_job(given, tmp_path), section), name)
    assert (tmp_path / above).resolve() == place.resolve()
    place.rmdir()
    with pytest.raises(UserError, match=f"^{key}: '{path}' does not exist"):
        shipped_job(given, Path())


def test_what_every_host_can_have_passes_unchanged() -> None:
    for changes in (
        {"data__source": "mnist", "data__root": "/data"},
        {"data__source": "s3://b/images", "features__weights": "s3://b/w.pth"},
        {"data__source": "~/images", "features__weights": "package:p/w.pth"},
        {"storage": "/mnt/store", "data__test": "file:///mnt/test"},
    ):
        assert shipped_job(job(**changes), None) == job(**changes)


def test_only_what_is_needed_is_shipped(tmp_path: Path) -> None:
    wanted = {"code.py", "images/cat/1.png"}
    for name in (
        *wanted,
        ".git/config",
        ".venv/bin/python",
        "env/pyvenv.cfg",
        "env/lib.py",
        "__pycache__/code.pyc",
        "my-store/artifacts/x/manifest.json",
        "my-store/runs/x/summary.json",
        ".token",
        JOB_FILE,
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    contents = []
    for folder in ("a", "b"):
        (tmp_path / f".{folder}").mkdir()
        package = pack(job(), tmp_path, tmp_path / f".{folder}")
        contents.append(package.read_bytes())
        with zipfile.ZipFile(package) as archive:
            assert {*archive.namelist()} == {*wanted, JOB_FILE}
            assert parse_job(yaml.safe_load(archive.read(JOB_FILE))) == job()
    assert contents[0] == contents[1]
    with zipfile.ZipFile(pack(job(), None, tmp_path)) as archive:
        assert archive.namelist() == [JOB_FILE]


def test_too_large_a_working_dir(tmp_path: Path) -> None:
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(501 * 2**20)  # sparse
    with pytest.raises(UserError, match=r"^--working-dir: .* holds 501 MiB"):
        pack(job(), tmp_path, tmp_path)
