"""Send a job to a Ray cluster through its dashboard (Ray Jobs), and follow it there."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass, urlopen

from rich.console import Console
from rich.markup import escape

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.runtime.session.address import TOKEN_REMEDY
from cwerm.runtime.session.session import quiet_ray
from cwerm.submission.package import JOB_FILE, SWEEP_FILE, pack, shipped_job
from cwerm.sweeps.file import Sweep
from cwerm.terminal import console

# Ray Jobs runs it on the head with RAY_ADDRESS set. As a module it needs no script on the PATH, and a
# cwerm in the working directory comes before the installed one.
RUN = f"python -m cwerm.cli run {JOB_FILE}"
FIND = f"python -m cwerm.cli find {JOB_FILE} --to"
SWEEP = f"python -m cwerm.cli sweep {SWEEP_FILE} {JOB_FILE}"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0  # for the dashboard's answer to a request
SLOWEST = 100_000  # bytes a second of what is uploaded
SILENT_SECONDS = 60.0  # without a line of the logs, the job's state is looked at
PENDING_SECONDS = 20.0  # likewise before the first line
INTERRUPTED = 130


def submit(
    job: Job,
    address: str | None = None,
    working_dir: Path | None = None,
    detach: bool = False,
    *,
    sweep: Sweep | None = None,
    resume: bool = False,
    find_to: str | None = None,
) -> int:
    """Run the job, a sweep of it or `find` on the cluster with the dashboard ``address``; its exit code.

    Args:
        job: the resolved job. Relative paths in it must lie in ``working_dir``.
        address: ``http://HOST:8265``; by default what RAY_ADDRESS says.
        working_dir: a folder shipped with the job; nothing but the job by default.
        detach: print the id of the Ray job and return at once, instead of following its logs.
        sweep: the space to run the job over.
        resume: go on with an interrupted sweep.
        find_to: train nothing, and write what is found of the labels to this address.

    Raises:
        UserError: a path that the cluster can't have, no cluster there, or it refuses the token.
    """
    key, address = find_dashboard(address)
    shipped = shipped_job(job, working_dir)
    client = connect(address, key)
    # where scripts read the id, it stands alone
    tell = Console(stderr=True, highlight=False).print if detach else console.note
    with tempfile.TemporaryDirectory() as folder:
        package = pack(shipped, working_dir, Path(folder), sweep, lambda text: tell(escape(text)))
        entrypoint = RUN if sweep is None else SWEEP + (" --resume" if resume else "")
        if find_to is not None:
            entrypoint = f"{FIND} {shlex.quote(find_to)}"
        try:
            identifier = client.submit_job(
                entrypoint=entrypoint,
                runtime_env={"working_dir": str(package)},
                metadata={"name": sweep.name if sweep else job.name},
            )
        except (RuntimeError, OSError) as error:
            reason = _short(str(error)) or type(error).__name__
            raise UserError(f"{key}: '{address}' did not take the job: {reason}") from error
    console.answer({"job": identifier, "cluster": address})
    if detach:
        console.out.print(identifier, soft_wrap=True, markup=False)
        return 0
    console.stage_line("submit", f"{identifier} at {address}")
    try:
        return exit_code(follow(client, identifier))
    except KeyboardInterrupt:
        told = f"\nno longer followed; the job goes on. {handles(identifier, address)}"
        console.out.print(told, soft_wrap=True, markup=False)
        return INTERRUPTED
    except OSError as error:
        raise UserError(
            f"{key}: lost the connection to '{address}'; the job goes on. "
            f"{handles(identifier, address)}"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"{key}: '{address}' can't say how the job {identifier} goes ({_short(str(error))}); was "
            f"the cluster started anew? {handles(identifier, address)}"
        ) from error


def find_dashboard(address: str | None) -> tuple[str, str]:
    """The dashboard's address and what names it: the option, or else a variable that Ray Jobs knows.

    Raises:
        UserError: there is none.
    """
    if address:
        return "--address", address.rstrip("/")
    named = {name: os.environ.get(name, "") for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")}
    for name, value in named.items():
        if value.startswith(("http://", "https://")):
            return name, value.rstrip("/")
    example = "http://127.0.0.1:8265"
    other = named["RAY_ADDRESS"]
    if other:
        raise UserError(
            f"--address: RAY_ADDRESS is '{other}', and a job is sent to the dashboard of the cluster; "
            f"give its address, such as {example}"
        )
    raise UserError(
        f"--address: give the dashboard of the cluster, such as {example}, here or in RAY_ADDRESS; "
        "see `cwerm submit --help`"
    )


def handles(identifier: str, address: str) -> str:
    """How to watch or stop a job that nobody follows."""
    return (
        f"Watch it: `ray job logs --follow {identifier} --address {address}`; "
        f"stop it: `ray job stop {identifier} --address {address}`"
    )


def connect(address: str, key: str = "--address") -> Any:
    """A client of the cluster's job server.

    Raises:
        UserError: the address is none, nothing or something else answers there, or a wrong token.
    """
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise UserError(f"{key}: '{address}' is no dashboard's address, such as http://HOST:8265")
    _check_dashboard(address, key)
    quiet_ray()
    logger = logging.getLogger("ray.dashboard")  # its remarks on uploads
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # they would win over the address given
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        """Ray's, which would wait for ever for a dashboard that has fallen silent."""

        def _do_request(self, *arguments: Any, data: bytes | None = None, **keywords: Any) -> Any:
            seconds = ANSWER_SECONDS + len(data or b"") / SLOWEST  # sending counts, too
            return super()._do_request(*arguments, data=data, timeout=seconds, **keywords)

    try:
        return Client(address)
    except AuthenticationError:
        raise UserError(f"{key}: the cluster at '{address}' {TOKEN_REMEDY}") from None
    except (RuntimeError, OSError) as error:
        raise _no_dashboard(address, error, key) from error


def _check_dashboard(address: str, key: str) -> None:
    """Ray's own client would wait for ever where nobody answers."""
    try:
        with urlopen(f"{address}/api/version", timeout=CONNECT_SECONDS) as answer:
            json.load(answer)["ray_version"]
    except HTTPError as error:
        if error.code not in (401, 403):  # these want a token, which the client has
            raise _no_dashboard(address, error, key) from None
    except OSError as error:
        raise _no_dashboard(address, error, key) from None
    except (ValueError, KeyError, TypeError):
        raise _no_dashboard(address, ValueError("something else answers there"), key) from None


def _no_dashboard(address: str, error: Exception, key: str) -> UserError:
    reason = _short(str(error)) or type(error).__name__
    parts = urlsplit(address)
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname or ""):
        reason += f", asked through the proxy of {parts.scheme}_proxy: no_proxy={parts.hostname} avoids it"
    return UserError(
        f"{key}: no Ray dashboard at '{address}' ({reason}); check the host and the port, and that "
        "a tunnel (`ray dashboard CLUSTER.yaml`, `kubectl port-forward`) is open"
    )


def _short(text: str) -> str:
    """The first and the last line, which say what went wrong; what is between them is how."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ": ".join(lines if len(lines) < 2 else (lines[0].rstrip(":"), lines[-1]))[:600]


def follow(client: Any, identifier: str) -> Any:
    """Print the job's logs as they come, until it ends; its details."""
    shown, told = 0, False
    while True:
        # A tail that breaks off starts again at the top of the logs.
        shown = asyncio.run(_print_logs(client, identifier, shown))
        details = client.get_job_info(identifier)
        if details.status.is_terminal():
            return details
        if details.status.value == "PENDING" and not told:
            message = _short(details.message or "nothing is known of why")
            console.note(escape(f"the job waits for its start: {message}"))
            told = True
        time.sleep(1)


async def _print_logs(client: Any, identifier: str, shown: int) -> int:
    """Print what comes after the first ``shown`` characters; the number of characters seen so far."""
    from aiohttp import ClientError

    seen = 0
    logs = client.tail_job_logs(identifier)
    try:
        while True:
            seconds = SILENT_SECONDS if seen or shown else PENDING_SECONDS
            text = await asyncio.wait_for(anext(logs), seconds)
            if not console.out.quiet:
                console.out.file.write(text[max(0, shown - seen) :])
                console.out.file.flush()
            seen += len(text)
    except (TimeoutError, StopAsyncIteration, RuntimeError, ClientError):
        pass  # the connection broke, or nothing comes: the job's status says whether to go on
    return max(seen, shown)


def exit_code(details: Any) -> int:
    """The job's exit code as a shell would give it; 1 where it never started."""
    code = details.driver_exit_code
    if code is not None:
        return code if code >= 0 else 128 - code
    message = _short(details.message or "nothing is known of why")
    sys.stderr.write(f"cwerm: the job {details.status.value.lower()}: {message}\n")
    return 1
