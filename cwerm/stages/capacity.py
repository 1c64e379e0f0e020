"""How many workers a run has, what each reserves, and what fits their memory."""

from __future__ import annotations

import psutil

from cwerm.config import Job
from cwerm.errors import UserError
from cwerm.stages import cluster
from cwerm.stages.session import ensure_ray, user_errors

AUTO_CPU_WORKERS = 8
# A trial of a sweep holds a small reservation, in which Ray would put all that the trial starts.
ANYWHERE = {"scheduling_strategy": "DEFAULT"}


def num_gpus() -> int:
    """GPUs of the cluster."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def num_workers(job: Job) -> int:
    """Workers of each distributed stage: as asked, or the cluster's GPUs, or up to 8 of its CPUs."""
    import ray

    ensure_ray(job)
    gpus, wanted = num_gpus(), job.resources.workers
    if wanted == "auto":
        return gpus or min(AUTO_CPU_WORKERS, int(ray.cluster_resources()["CPU"]))
    cluster.check_gpus(job.resources.min_workers or wanted, gpus)
    return min(wanted, gpus) if gpus else wanted


def elastic_workers(job: Job) -> tuple[int, int]:
    """The fewest and the most workers that training runs on; alike where the job asks for no fewer."""
    workers = num_workers(job)
    fewest, wanted = job.resources.min_workers, job.resources.workers
    if fewest is None:
        return workers, workers
    most = workers if wanted == "auto" else wanted
    return min(fewest, most), most


def worker_resources(workers: int, *, share: float = 1.0) -> dict[str, float]:
    """What each of ``workers`` reserves: a GPU where there are any, and part of the CPUs.

    ``share`` is the part of the cluster's CPUs they may hold together; a pool that held them all
    would starve the tasks that feed it, and wait for ever.
    """
    import ray

    cpus = float(ray.cluster_resources().get("CPU", 1))
    resources = {"CPU": min(1.0, int(1000 * cpus * share / workers) / 1000)}
    return {**resources, "GPU": 1.0} if num_gpus() else resources


def check_memory(key: str, bytes_a_sample: int, batch_size: int, workers_a_node: int = 1) -> None:
    """Refuse a batch that can't fit the memory where the workers run.

    ``workers_a_node`` is the number of batches in one memory at once; see `workers_sharing_memory`.

    Raises:
        UserError: naming ``key``, the memory needed, the memory free and a batch that fits.
    """
    free = _free_memory()
    needed = bytes_a_sample * batch_size * workers_a_node
    if needed > free:
        fitting = int(0.5 * free / (bytes_a_sample * workers_a_node))
        raise UserError(
            f"{key}: a batch of {batch_size} needs about {needed / 2**30:.1f} GiB and "
            f"{free / 2**30:.1f} GiB are free; try {max(1, fitting)}"
        )


def workers_sharing_memory(workers: int) -> int:
    """How many of the workers use the same memory: one on a GPU of its own, all of a node on CPUs."""
    return 1 if num_gpus() else -(-workers // len(cluster.worker_nodes()))


def _free_memory() -> int:
    """Bytes free for a batch: on a GPU worker where there are GPUs, else on a CPU worker."""
    import ray

    def on_gpu() -> int:
        import torch

        return torch.cuda.mem_get_info()[0]

    def on_cpu() -> int:
        return psutil.virtual_memory().available

    gpu = bool(num_gpus())
    probe = ray.remote(num_cpus=0.1, num_gpus=1 if gpu else 0, **ANYWHERE)(
        on_gpu if gpu else on_cpu
    )
    with user_errors():
        return ray.get(probe.remote())
