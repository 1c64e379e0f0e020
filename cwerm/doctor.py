"""What this machine or cluster offers, for a person who wonders why a run does not start."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import psutil
from rich.markup import escape

from cwerm import console
from cwerm.errors import UserError
from cwerm.storage import open_storage

# The package that has FAISS with GPU support exists for this platform alone.
IS_LINUX_X86 = platform.system() == "Linux" and platform.machine() == "x86_64"
FAISS = "faiss-gpu" if IS_LINUX_X86 else "faiss-cpu"
PACKAGES = ("cwerm", "torch", "torchvision", "timm", "ray", FAISS, "pyarrow", "numpy")
LEAST_MEMORY = 4 * 2**30
LEAST_SHARED_MEMORY = 2**30


def examine(storage: str | None, address: str | None) -> bool:
    """Print what was found; False where something needed is missing."""
    problems: list[str] = []
    console.out.print(f"Python {platform.python_version()} on {platform.platform()}")
    console.out.print(", ".join(f"{name} {_version(name)}" for name in PACKAGES), soft_wrap=True)
    memory = psutil.virtual_memory()
    console.out.print(
        f"{os.cpu_count()} CPUs, {memory.available / 2**30:.1f} of "
        f"{memory.total / 2**30:.1f} GiB memory free"
    )
    if memory.available < LEAST_MEMORY:
        problems.append("less than 4 GiB of memory are free; close other programs")
    if os.path.isdir("/dev/shm") and psutil.disk_usage("/dev/shm").free < LEAST_SHARED_MEMORY:
        problems.append(
            "/dev/shm has less than 1 GiB free; Ray will be slow (in Docker: --shm-size)"
        )
    _examine_gpus()
    for check in (lambda: _examine_storage(storage), lambda: _examine_cluster(address)):
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    for problem in problems:
        console.out.print(f"[red]problem[/red]  {escape(problem)}", soft_wrap=True)
    if not problems:
        console.out.print("[green]no problems found[/green]")
    return not problems


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "missing"


def _examine_gpus() -> None:
    import faiss
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    faiss_gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    console.out.print(f"GPUs: {', '.join(names) or 'none'}; FAISS sees {faiss_gpus}")


def _examine_storage(storage: str | None) -> None:
    if storage:
        open_storage(storage).check_writable()
        console.out.print(f"storage {storage}: can be written", soft_wrap=True, markup=False)


def _examine_cluster(address: str | None) -> None:
    from cwerm.config import parse_job
    from cwerm.stages.session import ensure_ray

    job = parse_job({"data": {"source": "sample"}, "resources": {"address": address}})
    ensure_ray(job)
    import ray

    resources = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    console.out.print(
        f"Ray {ray.__version__}: {nodes} node(s), {resources.get('CPU', 0):.0f} CPUs, "
        f"{resources.get('GPU', 0):.0f} GPUs"
    )
