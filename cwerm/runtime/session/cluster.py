"""Whether the Ray cluster that a run joins can do it; what is missing is told before any work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from cwerm.errors import UserError
from cwerm.runtime.asked import Run
from cwerm.terminal import console

ANSWER_SECONDS = 120.0
VERSION_REMEDY = (
    "install the same versions on every host, or let the cluster start the run: `cwerm submit`"
)


def check(run: Run) -> None:
    """Check what the joined cluster has, and the versions on its workers.

    Raises:
        UserError: no worker is there, one does not answer, or its Python, Ray or cwerm differ.
    """
    check_resources(run)
    check_nodes(run)


def check_resources(run: Run) -> None:
    """Refuse a cluster that is too small, and say so where the run has to wait for other work.

    A run is sized by what is there when it starts. Ray does not tell what its autoscaler could add, so
    the autoscaler's workers must come first.

    Raises:
        UserError: the cluster has no CPU, or fewer GPUs than workers are asked for.
    """
    import ray

    there, free = ray.cluster_resources(), ray.available_resources()
    gpus, wanted = int(there.get("GPU", 0)), run.resources.workers
    if there.get("CPU", 0) < 1:
        raise no_cpu(wanted)
    check_gpus(run.resources.min_workers or wanted, gpus)
    key = "GPU" if gpus else "CPU"
    if free.get(key, 0) < 1:
        console.note(f"other work holds all {there[key]:.0f} {key}s; this run waits for them")


def no_cpu(workers: int | str) -> UserError:
    """The error where no node has a CPU to give away."""
    count = "COUNT" if workers == "auto" else workers
    return UserError(
        "resources: the cluster has no worker with a CPU; start one with `ray start`, or get some "
        f"from its autoscaler: `python cluster/gpus.py {count}`"
    )


def check_gpus(workers: int | str, gpus: int) -> None:
    """Refuse more workers than GPUs, where there are any.

    Raises:
        UserError: naming both numbers.
    """
    if gpus and workers != "auto" and int(workers) > gpus:
        raise UserError(
            f"resources.workers: {workers} workers take a GPU each and {gpus} are there; ask for at most "
            f"{gpus}, or get more from a cluster's autoscaler: `python cluster/gpus.py {workers}`"
        )


def check_drivers(nodes: Sequence[str]) -> None:
    """Look on nodes that have a GPU for Ray whether torch finds it, too.

    Raises:
        UserError: naming a node where it does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_check_own_driver)
    answers = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote()
        for node in nodes
    ]
    for answer in ray.wait(answers, num_returns=len(answers), timeout=ANSWER_SECONDS)[0]:
        try:
            problem = ray.get(answer)
        except ray.exceptions.RayError:
            continue  # a node that has gone, or where cwerm is missing: told elsewhere
        if problem:
            raise UserError(problem)


def _check_own_driver() -> str | None:
    # Ray hides the GPUs from a task that reserves none, and one that does would wait for a free one
    hidden = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        return driver_problem()
    finally:
        if hidden is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = hidden


def driver_problem() -> str | None:
    """Why torch can't use the GPU that Ray sees on this node, and what would help; None if it can."""
    import ray
    import torch

    if torch.cuda.is_available():
        return None
    return (
        f"resources: node {ray.util.get_node_ip_address()} offers a GPU to Ray, and torch "
        f"{torch.__version__} finds none there; check its driver with `nvidia-smi`, or hide the GPU: start "
        "Ray there with --num-gpus=0, or the run with CUDA_VISIBLE_DEVICES set to nothing"
    )


def check_device(device: str) -> None:
    """Refuse to compute on anything but what the run was sized to; called by each worker.

    Raises:
        UserError: naming this node.
    """
    if device == "cuda" and (problem := driver_problem()):
        raise UserError(problem)


def worker_nodes() -> list[dict[str, Any]]:
    """Ray's records of the nodes that live and have a CPU to give away; the head may have none."""
    import ray

    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0]


def check_nodes(run: Run) -> None:
    """Compare every node that takes work with this process: its versions, and the files it sees.

    Raises:
        UserError: naming the node, and what differs there or is missing.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def report(paths: dict[str, str]) -> dict[str, str]:
        """Pickled by value, so that it runs where cwerm can't be imported."""
        import importlib
        import os
        import platform
        from importlib.metadata import PackageNotFoundError, version

        import ray

        found = {"Python": platform.python_version(), "Ray": ray.__version__}
        try:
            importlib.import_module("cwerm")
            found["cwerm"] = version("cwerm")
        except PackageNotFoundError:
            found["cwerm"] = "not installed"  # run from its source
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        unseen = [key for key, path in paths.items() if not os.path.exists(path)]
        return {**found, "unseen": unseen[0]} if unseen else found

    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in worker_nodes()}
    task = ray.remote(num_cpus=0, max_retries=0)(report)
    with _local_paths(run) as paths:
        answers = {
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(paths): address
            for node, address in nodes.items()
        }
        ready, silent = ray.wait([*answers], num_returns=len(answers), timeout=ANSWER_SECONDS)
    for answer in ready:
        try:
            found = ray.get(answer)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            found = {"error": reason}
        problem = difference(report({}), found)
        if problem:
            raise UserError(f"resources.address: node {answers[answer]}: {problem}")
        if "unseen" in found:
            raise UserError(
                f"{found['unseen']}: node {answers[answer]} does not see '{run.places[found['unseen']]}'; "
                "on a cluster use an s3:// URI, or a file system that all hosts share"
            )
    if silent:
        raise UserError(
            f"resources.address: node {answers[silent[0]]}: no worker answers within "
            f"{ANSWER_SECONDS:.0f} s; see `ray status` and the logs of that node"
        )


@contextmanager
def _local_paths(run: Run) -> Iterator[dict[str, str]]:
    """Paths by key that every node must see; for the storage a new file, as folders may be alike."""
    from cwerm.data.catalog import KNOWN_NAMES
    from cwerm.store.storage import local_path

    paths = {}
    for key, uri in run.places.items():
        if uri not in KNOWN_NAMES and urlsplit(uri).scheme in ("", "file"):
            paths[key] = str(local_path(uri))
    if not os.path.isdir(paths.get("storage", "")):
        paths.pop("storage", None)
        yield paths
        return
    with tempfile.NamedTemporaryFile(dir=paths["storage"], prefix=".probe-") as probe:
        yield {**paths, "storage": probe.name}


def difference(own: dict[str, str], worker: dict[str, str]) -> str | None:
    """What differs between this process and a worker, with the remedy; None where nothing does.

    Of Python the last part may differ: what one pickles the other reads.
    """
    if "error" in worker:
        return f"cwerm can't be imported there ({worker['error']}); install it on every host"

    def binding(versions: dict[str, str], name: str) -> str:
        return versions[name].rpartition(".")[0] if name == "Python" else versions[name]

    unequal = [
        f"{name} {worker[name]}, here {own[name]}"
        for name in own
        if binding(own, name) != binding(worker, name)
    ]
    return f"it has {' and '.join(unequal)}; {VERSION_REMEDY}" if unequal else None
