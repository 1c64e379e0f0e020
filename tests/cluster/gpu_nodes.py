"""Run a job on two nodes with a GPU each, as far as Ray knows, beside a head without one; some are lost.

``python gpu_nodes.py JOB [--types TYPE TYPE] [--strike PATTERN]... [--back SECONDS | --back-when WORDS]``:
the GPUs of the two are of these types, where any are given. At the n-th strike, once a file of the storage
matches the pattern, the n-th node is lost; a new one comes so many seconds after the last, or when the run
has said the words. torch computes on the CPU. A program of its own, as a process can hold one Ray session.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

from cwerm.runtime.session.session import quiet_ray

quiet_ray()

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from cwerm import pipeline  # noqa: E402
from cwerm.errors import UserError  # noqa: E402
from cwerm.job.tree import load_job  # noqa: E402
from cwerm.runtime import capacity, waiting  # noqa: E402

HEAD = {"num_cpus": 0, "object_store_memory": 150_000_000}
NODE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 150_000_000}


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("job")
    arguments.add_argument("--strike", action="append", default=[])
    arguments.add_argument("--back", type=float)
    arguments.add_argument("--back-when")
    arguments.add_argument("--types", nargs=2, default=[None, None])
    given = arguments.parse_args()
    job = load_job(given.job)
    # the one thing that is not as on real GPUs
    capacity.torch_device = lambda nodes: "cpu"  # type: ignore[assignment]
    waiting.TELL_SECONDS = 3.0
    # a node that comes later is added by a thread, where no handler of signals can be set
    cluster = Cluster(initialize_head=True, head_node_args=HEAD, shutdown_at_exit=False)
    # before others come: of nodes on one machine Ray would choose any as the driver's own
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    nodes = [
        cluster.add_node(**NODE, resources={f"accelerator_type:{name}": 1} if name else {})
        for name in given.types
    ]
    cluster.wait_for_nodes()

    said = hear(given.back_when)

    def strike() -> None:
        for pattern, node in zip(given.strike, nodes, strict=False):
            while not list(Path(job.storage).glob(pattern)):
                time.sleep(0.01)
            cluster.remove_node(node, allow_graceful=False)
            sys.stdout.write(f"STRUCK at {pattern}\n")
        if given.back is not None or given.back_when:
            if given.back_when:
                said.wait()
            time.sleep(given.back or 0)
            cluster.add_node(**NODE)
            sys.stdout.write("BACK\n")

    threading.Thread(target=strike, daemon=True).start()
    try:
        result = pipeline.run(job)
    except UserError as error:
        sys.stdout.write(f"ENDED {error}\n")
        return 1
    else:
        sys.stdout.write(f"RESOURCES {result.summary['resources']}\n")
        return 0
    finally:
        ray.shutdown()
        cluster.shutdown()


def hear(words: str | None) -> threading.Event:
    """Set once the words are printed."""
    heard, write = threading.Event(), sys.stdout.write

    def listening(text: str) -> int:
        if words and words in text:
            heard.set()
        return write(text)

    sys.stdout.write = listening  # type: ignore[method-assign]
    return heard


if __name__ == "__main__":
    sys.exit(main())
