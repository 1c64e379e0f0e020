"""What this machine or cluster offers, for a person who wonders why a run does not start."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.markup import escape

from cwerm.errors import UserError
from cwerm.store.storage import LocalStorage, S3Storage, open_storage
from cwerm.terminal import console

# The package that has FAISS with GPU support exists for this platform alone.
IS_LINUX_X86 = platform.system() == "Linux" and platform.machine() == "x86_64"
FAISS = "faiss-gpu" if IS_LINUX_X86 else "faiss-cpu"
PACKAGES = ("cwerm", "torch", "torchvision", "timm", "ray", FAISS, "pyarrow", "boto3", "numpy")
IMPORTED = ("torch", "torchvision", "timm", "ray", "faiss", "pyarrow", "boto3", "numpy", "PIL")
LEAST_MEMORY = 4 * 2**30
LEAST_SHARED_MEMORY = 2**30
LEAST_DISK = 5 * 2**30
SKEW_SECONDS = 300.0  # a server of S3 refuses what is 900 off


def examine(storage: str | None, address: str | None) -> list[str]:
    """Print what was found; the problems, [] where nothing that is needed is missing."""
    problems: list[str] = []
    console.out.print(f"Python {platform.python_version()} on {platform.platform()}")
    console.out.print(", ".join(f"{name} {_version(name)}" for name in PACKAGES), soft_wrap=True)
    broken = _broken()
    problems += broken
    memory = psutil.virtual_memory()
    console.out.print(
        f"{os.cpu_count()} CPUs, {memory.available / 2**30:.1f} of "
        f"{memory.total / 2**30:.1f} GiB memory free"
    )
    if memory.available < LEAST_MEMORY:
        problems.append("less than 4 GiB of memory are free; close other programs")
    problems += _examine_disks()
    checks = [lambda: _examine_storage(storage)]
    if not broken:
        checks = [_examine_gpus, *checks, lambda: _examine_cluster(address)]
    for check in checks:
        try:
            problems += check()
        except UserError as error:
            problems.append(str(error))
    for problem in problems:
        console.out.print(f"[red]problem[/red]  {escape(problem)}", soft_wrap=True)
    if not problems:
        console.out.print("[green]no problems found[/green]")
    return problems


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "missing"


def _broken() -> list[str]:
    """Packages that are missing, or can't be imported."""
    from cwerm.runtime.session.session import quiet_ray

    quiet_ray()
    problems = []
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a broken package raises
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            problems.append(f"{name} can't be imported ({reason}); install cwerm again")
    return problems


def _examine_disks() -> list[str]:
    problems = []
    free = shutil.disk_usage(tempfile.gettempdir()).free
    line = f"{free / 2**30:.1f} GiB free in {tempfile.gettempdir()}"
    if free < LEAST_DISK:
        problems.append(
            f"{tempfile.gettempdir()} has less than {LEAST_DISK / 2**30:.0f} GiB free, where Ray keeps "
            "what does not fit memory; free some, or set TMPDIR"
        )
    if os.path.isdir("/dev/shm"):
        shared = shutil.disk_usage("/dev/shm")
        line += f"; /dev/shm {shared.free / 2**30:.1f} of {shared.total / 2**30:.1f} GiB free"
        if shared.free < LEAST_SHARED_MEMORY:
            problems.append(
                "/dev/shm has less than 1 GiB free; Ray will be slow (in Docker: --shm-size)"
            )
    console.out.print(line, soft_wrap=True, markup=False)
    return problems


def _examine_gpus() -> list[str]:
    import faiss
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    faiss_gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    console.out.print(f"GPUs: {', '.join(names) or 'none'}; FAISS sees {faiss_gpus}")
    return []


def _examine_storage(storage: str | None) -> list[str]:
    if not storage:
        return []
    opened = open_storage(storage)
    if isinstance(opened, S3Storage):
        console.out.print(opened.reached_by(), soft_wrap=True, markup=False)
    opened.check_writable()
    console.out.print(f"storage {storage}: can be written", soft_wrap=True, markup=False)
    if isinstance(opened, S3Storage):
        return _examine_clock(opened)
    free = shutil.disk_usage(Path(opened.root)).free if isinstance(opened, LocalStorage) else None
    if free is not None:
        console.out.print(f"{free / 2**30:.1f} GiB free there", markup=False)
        if free < LEAST_DISK:
            return [f"storage {storage}: less than {LEAST_DISK / 2**30:.0f} GiB are free there"]
    return []


def _examine_clock(storage: S3Storage) -> list[str]:
    skew = storage.clock_skew()
    if skew is None:
        return []
    console.out.print(f"this clock is {skew:+.0f} s from the server's", markup=False)
    if abs(skew) < SKEW_SECONDS:
        return []
    return [
        f"this machine's clock is {skew / 60:+.0f} minutes from that of the S3 server, which refuses "
        "what is 15 off; set it, such as by NTP"
    ]


def _examine_cluster(address: str | None) -> list[str]:
    from cwerm.job.tree import parse_job
    from cwerm.runtime.session.session import ensure_ray

    job = parse_job({"data": {"source": "sample"}, "resources": {"address": address}})
    ensure_ray(job)
    import ray

    resources = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    console.out.print(
        f"Ray {ray.__version__}: {nodes} node(s), {resources.get('CPU', 0):.0f} CPUs, "
        f"{resources.get('GPU', 0):.0f} GPUs"
    )
    return []
