"""Dashboards that are no good: silent, without the job, in a variable; jobs that can't start."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from s3_servers import silent_server

from cwerm.errors import UserError
from cwerm.job.tree import parse_job
from cwerm.submission import submit

# of Ray's own client
pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")
VERSION = {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"}


def job() -> Any:
    return parse_job({"storage": "s3://b/x", "data": {"source": "sample"}})


@contextmanager
def dashboard(answers: dict[str, Any]) -> Iterator[str]:
    """Answers as Ray's does until a job is sent; then by the path's beginning: a status and JSON, or
    nothing at all."""
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            found = [answer for path, answer in answers.items() if self.path.startswith(path)]
            if found and found[0] is None:
                ended.wait(30)
                return
            status, tree = (
                (found[0]() if callable(found[0]) else found[0]) if found else (200, VERSION)
            )
            body = json.dumps(tree).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = _answer  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            return

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            return

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            ended.set()
            server.shutdown()


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    # which keeps the proxies that were set when the process first opened an address
    monkeypatch.setattr(urllib.request, "_opener", None)


def test_the_address_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^--address: give the dashboard of the cluster"):
        submit.find_dashboard(None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError, match=r"^--address: RAY_ADDRESS is '10.0.0.1:6379', and a job"):
        submit.find_dashboard(None)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9/")
    assert submit.find_dashboard(None) == ("RAY_ADDRESS", "http://127.0.0.1:9")
    assert submit.find_dashboard("http://h:1") == ("--address", "http://h:1")
    with pytest.raises(UserError, match=r"^RAY_ADDRESS: no Ray dashboard at 'http://127.0.0.1:9'"):
        submit.submit(job())
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"through the proxy of http_proxy: no_proxy=127.0.0.1"):
        submit.submit(job(), "http://127.0.0.1:9")


@pytest.mark.parametrize("path", ["", "/api/packages", "/api/jobs"])
def test_a_dashboard_that_falls_silent(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(submit, "ANSWER_SECONDS", 0.5)
    started = time.monotonic()
    with (
        dashboard({path: None}) if path else silent_server() as address,
        pytest.raises(UserError, match=r"^--address: .*timed out") as caught,
    ):
        submit.submit(job(), address, detach=True)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10


def test_a_dashboard_that_forgets_the_job() -> None:
    unknown = (404, {"result": False, "msg": "Job x does not exist"})
    answers = {"/api/jobs/x": unknown, "/api/jobs/": (200, {"submission_id": "x", "job_id": "x"})}
    with (
        dashboard(answers) as address,
        pytest.raises(UserError, match=r"can't say how the job x goes .*404.*ray job stop x"),
    ):
        submit.submit(job(), address)


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (
            "FAILED",
            "runtime_env setup failed:\nTraceback\n  x\nOSError: no space",
            "failed: no space",
        ),
        ("STOPPED", None, "stopped: nothing is known of why"),
    ],
)
def test_a_job_that_can_not_start(
    status: str, message: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    details = SimpleNamespace(
        driver_exit_code=None, message=message, status=SimpleNamespace(value=status)
    )
    assert submit.exit_code(details) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"cwerm: the job {status.lower()}: ")
    assert words.rpartition(": ")[2] in line
    assert line.count("\n") == 1


def test_a_job_that_waits_for_its_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from cwerm.terminal import console

    monkeypatch.setattr(submit, "PENDING_SECONDS", 0.2)
    states = iter(["PENDING", "PENDING", "FAILED"])

    def info() -> tuple[int, dict[str, Any]]:
        told = {"type": "SUBMISSION", "entrypoint": "x", "message": "no resources\nfor it"}
        return 200, {**told, "status": next(states)}

    answers = {"/api/jobs/x/logs": (404, {}), "/api/jobs/x": info}
    told: list[str] = []
    with dashboard(answers) as address, console.told_to(told.append):
        client = submit.connect(address)
        details = submit.follow(client, "x")
    assert submit.exit_code(details) == 1
    assert told == ["the job waits for its start: no resources: for it"]
    assert os.environ.get("RAY_ADDRESS") is None
