"""Send a job to a Ray cluster through its dashboard (Ray Jobs), and follow it there."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from cwerm import console
from cwerm.config import Job
from cwerm.errors import UserError
from cwerm.package import JOB_FILE, SWEEP_FILE, pack, shipped_job
from cwerm.stages.session import TOKEN_REMEDY, quiet_ray
from cwerm.sweeps.file import Sweep

# Ray Jobs runs it on the head with RAY_ADDRESS set. As a module it needs no script on the PATH, and a
# cwerm in the working directory comes before the installed one.
RUN = f"python -m cwerm.cli run {JOB_FILE}"
SWEEP = f"python -m cwerm.cli sweep {SWEEP_FILE} {JOB_FILE}"
CONNECT_SECONDS = 5.0
INTERRUPTED = 130


def submit(
    job: Job,
    address: str,
    working_dir: Path | None = None,
    detach: bool = False,
    *,
    sweep: Sweep | None = None,
    resume: bool = False,
) -> int:
    """Run the job, or a sweep of it, on the cluster whose dashboard is at ``address``; its exit code.

    Args:
        job: the resolved job. Relative paths in it must lie in ``working_dir``.
        address: ``http://HOST:8265``.
        working_dir: a folder shipped with the job; nothing but the job by default.
        detach: print the id of the Ray job and return at once, instead of following its logs.
        sweep: the space to run the job over.
        resume: go on with an interrupted sweep.

    Raises:
        UserError: a path that the cluster can't have, no cluster there, or it refuses the token.
    """
    address = address.rstrip("/")
    shipped = shipped_job(job, working_dir)
    client = connect(address)
    with tempfile.TemporaryDirectory() as folder:
        package = pack(shipped, working_dir, Path(folder), sweep)
        entrypoint = RUN if sweep is None else SWEEP + (" --resume" if resume else "")
        try:
            identifier = client.submit_job(
                entrypoint=entrypoint,
                runtime_env={"working_dir": str(package)},
                metadata={"name": sweep.name if sweep else job.name},
            )
        except (RuntimeError, OSError) as error:
            raise UserError(f"--address: '{address}' did not take the job: {error}") from error
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
            f"--address: lost the connection to '{address}'; the job goes on. "
            f"{handles(identifier, address)}"
        ) from error


def handles(identifier: str, address: str) -> str:
    """How to watch or stop a job that nobody follows."""
    return (
        f"Watch it: `ray job logs --follow {identifier} --address {address}`; "
        f"stop it: `ray job stop {identifier} --address {address}`"
    )


def connect(address: str) -> Any:
    """A client of the cluster's job server.

    Raises:
        UserError: the address is none, nothing or something else answers there, or a wrong token.
    """
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise UserError(
            f"--address: '{address}' is no dashboard's address, such as http://HOST:8265"
        )
    _check_dashboard(address)
    quiet_ray()
    logger = logging.getLogger("ray.dashboard")  # its remarks on uploads
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # they would win over the address given
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise UserError(f"--address: the cluster at '{address}' {TOKEN_REMEDY}") from None
    except (RuntimeError, OSError) as error:
        raise _no_dashboard(address, error) from error


def _check_dashboard(address: str) -> None:
    """Ray's own client would wait for ever where nobody answers."""
    try:
        with urlopen(f"{address}/api/version", timeout=CONNECT_SECONDS) as answer:
            json.load(answer)["ray_version"]
    except HTTPError as error:
        if error.code not in (401, 403):  # these want a token, which the client has
            raise _no_dashboard(address, error) from None
    except OSError as error:
        raise _no_dashboard(address, error) from None
    except (ValueError, KeyError, TypeError):
        raise _no_dashboard(address, ValueError("something else answers there")) from None


def _no_dashboard(address: str, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(
        f"--address: no Ray dashboard at '{address}' ({reason}); check the host and the port, and that "
        "a tunnel (`ray dashboard CLUSTER.yaml`, `kubectl port-forward`) is open"
    )


def follow(client: Any, identifier: str) -> Any:
    """Print the job's logs as they come, until it ends; its details."""
    shown = 0
    while True:
        # A tail that breaks off starts again at the top of the logs.
        shown = asyncio.run(_print_logs(client, identifier, shown))
        details = client.get_job_info(identifier)
        if details.status.is_terminal():
            return details
        time.sleep(1)


async def _print_logs(client: Any, identifier: str, shown: int) -> int:
    """Print what comes after the first ``shown`` characters; the number of characters seen so far."""
    seen = 0
    try:
        async for text in client.tail_job_logs(identifier):
            sys.stdout.write(text[max(0, shown - seen) :])
            sys.stdout.flush()
            seen += len(text)
    except RuntimeError:  # the connection broke: the job's status says whether to go on
        pass
    return max(seen, shown)


def exit_code(details: Any) -> int:
    """The job's exit code as a shell would give it; 1 where it never started."""
    code = details.driver_exit_code
    if code is not None:
        return code if code >= 0 else 128 - code
    sys.stderr.write(f"cwerm: the job {details.status.value.lower()}: {details.message}\n")
    return 1
