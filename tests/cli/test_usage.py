"""Mistakes on the command line and in the job file: found before anything heavy is loaded."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import pytest
import yaml
from commands import Answer, process, write_job

Cwerm = Callable[..., Answer]
JOBS = sorted((Path(__file__).parents[2] / "jobs").rglob("*.yaml"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["Missing argument 'JOB.yaml'", "`cwerm run --help`"]),
        (["rum"], ["rum", "--help"]),
        (["run", "x.yaml", "--stroage", "y"], ["--stroage", "`cwerm run --help`"]),
        (["inspect", "x", "--lowest", "0"], ["--lowest", "1"]),
        (["export", "x"], ["--to"]),
        (["submit", "x.yaml"], ["--address", "`cwerm submit --help`"]),
        (["gc"], ["STORAGE"]),
        (["gc", "x", "--older-than", "-1"], ["--older-than"]),
    ],
)
def test_usage(cwerm: Cwerm, arguments: list[str], words: list[str]) -> None:
    cwerm(*arguments).refused(*words)


def test_help_without_arguments(cwerm: Cwerm) -> None:
    answer = cwerm()
    answer.succeeded()
    for command in ("run", "stage", "submit", "inspect", "export", "gc", "doctor", "schema"):
        assert f"  {command} " in answer.out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such job file", "jobs/quickstart.yaml"]),
        (b"", ["empty", "quickstart"]),
        (b"# nothing but a remark\n", ["empty"]),
        (b"\x80\x04\x95\xff\xfe", ["no text"]),
        (b"name: a\x00b", ["not valid YAML"]),
        (b"- a\n- b\n", ["mapping of keys"]),
        (b"42", ["mapping of keys"]),
        (b"data:\n  source: sample\n seed: 1\n", ["line 3", "not valid YAML"]),
        (b"data:\n\tsource: sample\n", ["line 2"]),
        (b"data: {source: sample\n", ["not valid YAML"]),
        (b"name: 2026-13-45\n", ["not valid YAML"]),
        (b"name: !!python/name:os.system\n", ["not valid YAML"]),
        (b"seed: 1\ndata: {source: sample}\nseed: 2\n", ["line 3", "'seed' comes twice"]),
        (b"data:\n  source: a\n  source: b\n", ["line 3", "'source' comes twice"]),
        (b"1: 2\ndata: {source: sample}\n", ["1: keys are text"]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_job_file(cwerm: Cwerm, tmp_path: Path, content: bytes | None, words: list[str]) -> None:
    job = tmp_path / "job.yaml"
    if content is not None:
        job.write_bytes(content)
    words = [*words] if b"1: 2" in (content or b"") else [str(job), *words]
    cwerm("run", job).refused(*words)


def test_job_file_that_is_a_folder(cwerm: Cwerm, tmp_path: Path) -> None:
    cwerm("run", tmp_path).refused(str(tmp_path), "folder")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("coreset.ratio", ["'coreset.ratio'", "section.key=value"]),
        ("=3", ["section.key=value"]),
        ("coreset..ratio=3", ["section.key=value"]),
        ("coreset=0.1", ["coreset", "a section", "coreset.KEY=VALUE"]),
        ("train=", ["train", "a section"]),
        ("corset.ratio=0.1", ["corset", "'coreset'"]),
        ("train.lr.x=0.1", ["'train.lr'", "not a section"]),
        ("coreset.ratoi=0.1", ["coreset.ratoi", "'ratio'"]),
        ("epochs=3", ["'reweight.epochs' or 'train.epochs'"]),
        ("train.lr=[1", ["train.lr", "'[1'"]),
        ("train.lr=fast", ["train.lr", "'fast'", "a number above 0"]),
        ("train.epochs=0", ["train.epochs", "got 0", "at least 1"]),
        ("coreset.ratio=0", ["coreset.ratio", "above 0 and at most 1"]),
        ("coreset.ratio=-0.1", ["coreset.ratio", "above 0 and at most 1"]),
        ("coreset.ratio=1.01", ["coreset.ratio", "above 0 and at most 1"]),
        ("coreset.ratio=.nan", ["coreset.ratio", "nan"]),
        ("data.max_rejects=.inf", ["data.max_rejects", "inf"]),
        ("method=cwerm", ["method", "'cw-erm'"]),
        ("name=a/b", ["name", "'a/b'", "letters"]),
        ("resources.workers=many", ["resources.workers", "at least 1 or 'auto'"]),
        ("data.source=", ["data.source", "text"]),
        ("storage=''", ["storage", "not empty"]),
    ],
)
def test_override(cwerm: Cwerm, tmp_path: Path, override: str, words: list[str]) -> None:
    job = write_job(tmp_path, {"storage": f"{tmp_path}/store", "data": {"source": "sample"}})
    cwerm("run", job, override).refused(*words)
    assert not (tmp_path / "store").exists()


def test_missing_source(cwerm: Cwerm, tmp_path: Path) -> None:
    for tree in ({"name": "x"}, {"data": {}}, {"data": None}):
        cwerm("run", write_job(tmp_path, tree)).refused("data.source", "required", "add it")


def test_unknown_stage(cwerm: Cwerm, tmp_path: Path) -> None:
    job = write_job(tmp_path, {"storage": f"{tmp_path}/store", "data": {"source": "sample"}})
    cwerm("stage", "ingets", job).refused("ingets", "did you mean 'ingest'")
    cwerm("stage", "xyz", job).refused("xyz", "ingest, extract, ")
    cwerm("stage", "select", job, "method=erm").refused("select", "method erm", "ingest, train")
    assert not (tmp_path / "store").exists()


def test_a_mistake_is_told_at_once_by_the_real_command(tmp_path: Path) -> None:
    process("run", tmp_path / "none.yaml").refused("none.yaml", "no such job file")


class Pages(BaseHTTPRequestHandler):
    """A web server that has nothing to do with Ray."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.timeout(120)
def test_submit_without_a_cluster(cwerm: Cwerm, tmp_path: Path, web_server: str) -> None:
    job = write_job(tmp_path, {"storage": "/store", "data": {"source": "sample"}})
    for address, word in (
        ("127.0.0.1:8265", "http://HOST:8265"),
        ("ray://127.0.0.1:10001", "http://HOST:8265"),
        ("http://127.0.0.1:9", "refused"),
        ("http://no-such-host.invalid:8265", "check the host"),
        (web_server, "something else answers"),
    ):
        cwerm("submit", job, "--address", address).refused("--address", address, word)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        cwerm("submit", job, "--address", address).refused("--address", address, "timed out")


def test_submit_of_what_the_cluster_can_not_have(cwerm: Cwerm, tmp_path: Path) -> None:
    """Told before anybody looks for the cluster."""
    job = write_job(tmp_path, {"data": {"source": "fashion_minst"}})
    submit = ["submit", job, "--address", "http://127.0.0.1:9"]
    cwerm(*submit).refused("storage: 'cwerm-store'", "--storage")
    storage = ["--storage", "/store"]
    cwerm(*submit, *storage).refused("data.source: 'fashion_minst'", "'fashion_mnist'")
    cwerm(*submit, *storage, "--working-dir", tmp_path / "none").refused("--working-dir", "none")
    cwerm(*submit, *storage, "coreset.ratio=2").refused("coreset.ratio")


def test_schema(cwerm: Cwerm) -> None:
    answer = cwerm("schema")
    answer.succeeded()
    schema = json.loads(answer.out)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert JOBS
    for job in JOBS:
        validator.validate(yaml.safe_load(job.read_text()))
    wrong: list[dict[str, Any]] = [
        {},
        {"data": {"source": "sample"}, "trian": {}},
        {"data": {"source": "sample"}, "coreset": {"ratio": 2}},
        {"data": {"source": "sample"}, "coreset": {"method": "nonsense"}},
        {"data": {"source": "sample"}, "s3": {"endpoint": "foo"}},
        {"data": {"source": "sample"}, "resources": {"workers": "many"}},
    ]
    assert not any(validator.is_valid(tree) for tree in wrong)


def test_the_schema_of_sweeps(cwerm: Cwerm) -> None:
    answer = cwerm("schema", "--sweep")
    answer.succeeded()
    schema = json.loads(answer.out)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    sweeps = [*(Path(__file__).parents[2] / "tune").rglob("*.yaml")]
    assert sweeps
    for sweep in sweeps:
        validator.validate(yaml.safe_load(sweep.read_text()))
    space = {"train.lr": {"grid": [0.1, 0.2]}}
    wrong: list[dict[str, Any]] = [
        {},
        {"name": "a", "space": space, "seed": 3},
        {"name": "a", "space": space, "search": "best"},
        {"name": "a", "space": space, "metric": "speed"},
        {"name": "a", "space": "train.lr"},
    ]
    assert not any(validator.is_valid(tree) for tree in wrong)
