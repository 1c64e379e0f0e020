"""Run a job on a Ray cluster of two nodes, one of which may be lost midway.

``python two_nodes.py JOB STAGE [PATTERN]``: up to the stage; the second node is lost once a file of the
storage matches the pattern. A program of its own, as a process can hold one Ray session.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from cwerm.runtime.session.session import quiet_ray

quiet_ray()

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from cwerm.job.tree import load_job  # noqa: E402
from cwerm.pipeline import plan  # noqa: E402
from cwerm.runtime.board import watched_nodes  # noqa: E402
from cwerm.runtime.capacity import sized_once  # noqa: E402

NODE = {"num_cpus": 2, "object_store_memory": 150_000_000}


def main(job_file: str, last: str, pattern: str = "") -> None:
    job = load_job(job_file)
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    # before another comes: of nodes on one machine Ray would choose any as the driver's own
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    assert len(ray.nodes()) == 2

    def strike() -> None:
        while not (found := len(list(Path(job.storage).glob(pattern)))):
            time.sleep(0.01)
        cluster.remove_node(second, allow_graceful=False)
        sys.stdout.write(f"struck after {found} file(s)\n")

    striker = threading.Thread(target=strike)
    if pattern:
        striker.start()
    with watched_nodes(), sized_once():
        steps = plan(job, last)
        for name in steps.names:
            steps.execute(name)
    if pattern:
        striker.join()
    nodes = sum(node["Alive"] for node in ray.nodes())
    ray.shutdown()
    cluster.shutdown()
    sys.stdout.write(f"nodes at the end: {nodes}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
