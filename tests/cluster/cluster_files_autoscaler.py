"""A Ray cluster on this machine whose autoscaler starts and ends nodes that say they have a GPU."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from cluster.cluster_files_checks import ROOT

HEAD_ID = "f" * 51 + "0" * 5  # the one that Ray's provider for its own tests takes for the head
CONFIG = {
    "cluster_name": "test",
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.05,
    "provider": {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "head_node_id": HEAD_ID,
        "launch_multiple": True,
    },
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "max_workers": 2},
    },
}


class AutoscalingHead:
    """The running head: its address, and the environment that a client of it needs."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        config = {**CONFIG, "provider": {**CONFIG["provider"], "gcs_address": self.address}}  # type: ignore[dict-item]
        (folder / "config.yaml").write_text(json.dumps(config))
        started = (
            f"source cluster/env.sh; exec {sys.executable} -m ray.scripts.scripts start --head "
            f"--block --port={port} --num-cpus=0 --num-gpus=0 --node-ip-address=127.0.0.1 "
            f"--object-store-memory=100000000 --include-dashboard=false --temp-dir={folder}/ray "
            f"--autoscaling-config={folder}/config.yaml"
        )
        provider = {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        }
        self.process = subprocess.Popen(
            ["bash", "-c", started],
            cwd=ROOT,
            env={**self.environment, **provider},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, *command: str, seconds: float = 180) -> subprocess.CompletedProcess[str]:
        """Run a program that may use the cluster."""
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def gpus(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run cluster/gpus.py on this cluster."""
        return self.run(sys.executable, "cluster/gpus.py", "--address", self.address, *arguments)


@contextmanager
def autoscaling_head(folder: Path) -> Iterator[AutoscalingHead]:
    """A head that is up; it and its nodes have ended afterwards."""
    head = AutoscalingHead(folder)
    try:
        end = time.monotonic() + 120
        check = (
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "health-check",
            "--address",
            head.address,
        )
        while head.run(*check).returncode:
            assert head.process.poll() is None, "the head ended"
            assert time.monotonic() < end, "the head does not answer"
            time.sleep(0.5)
        yield head
    finally:
        head.process.send_signal(signal.SIGTERM)
        head.process.wait(60)
        _end_rest(folder)


def _end_rest(folder: Path) -> None:
    """The nodes' log monitors outlive them; their command lines name the cluster's own folder."""
    for process in psutil.process_iter(["cmdline"]):
        if any(f"{folder}/ray" in part for part in process.info["cmdline"] or ()):
            process.kill()
