"""`ray up` with cluster/local.yaml on hosts of one's own, by the steps of cluster/README.md."""

from __future__ import annotations

import filecmp
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from cli.commands import write_job

from cluster.cluster_files_checks import CLUSTER, ROOT
from cluster.hosts import Host, hosts, obstacle, wait_for

MISSING = obstacle("sshd", "ssh", "ssh-keygen", "rsync")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

GPU_HOSTS = ("gpu-1", "gpu-2")
SSHD = """
HostKey {folder}/host_key
PidFile none
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
StrictModes no
"""


def make_login(laptop: Host, others: list[Host]) -> None:
    """A key of the laptop that opens all other hosts, on which sshd runs."""
    ssh = laptop.home / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "config").write_text("StrictHostKeyChecking accept-new\n")
    laptop.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh / "id_ed25519")
    for host in others:
        (host.home / ".ssh").mkdir(mode=0o700)
        key = (ssh / "id_ed25519.pub").read_text()
        (host.home / ".ssh/authorized_keys").write_text(key)
        host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host.folder / "host_key")
        configuration = host.folder / "sshd_config"
        configuration.write_text(SSHD.format(folder=host.folder))
        host.shell(f"$(command -v sshd) -f {configuration}")


def filled_in(folder: Path) -> Path:
    """cluster/local.yaml with all values that read CHANGE-ME set."""
    text = (CLUSTER / "local.yaml").read_text()
    for name, value in (("head", "head"), ("user", "root"), *((n, n) for n in GPU_HOSTS)):
        text = re.sub(rf"CHANGE-ME-{name}\b", value, text)
    assert "CHANGE-ME" not in text
    tree = yaml.safe_load(text)
    # All hosts run on this machine's Python with this test's environment, which ~/cwerm-venv is a link
    # to: an installation of 8 GB on each would take minutes and the network.
    (making, installing) = [c for c in tree["setup_commands"] if "~/cwerm-venv" in c]
    assert "-m venv" in making
    assert "pip install" in installing
    tree["setup_commands"].remove(making)
    tree["setup_commands"].remove(installing)
    path = folder / "local.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@contextmanager
def tunnel(laptop: Host, configuration: Path) -> Iterator[str]:
    """``ray dashboard`` in a second shell."""
    script = f"export RAY_AUTH_MODE=token; exec ray dashboard {configuration}"
    process = subprocess.Popen(
        laptop.command("bash", "-c", script),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        probe = "exec 3<>/dev/tcp/127.0.0.1/8265"
        wait_for(
            lambda: (
                not subprocess.run(
                    laptop.command("bash", "-c", probe), capture_output=True
                ).returncode
            ),
            60,
        )
        yield "http://127.0.0.1:8265"
    finally:
        laptop.end("ray dashboard", signal.SIGINT)
        process.wait(60)


def strangers(host: Host) -> list[str]:
    """What runs there besides sshd and the connections that ssh keeps open for some seconds."""
    return [command for command in host.processes().values() if not command.startswith("ssh")]


def tiny(folder: Path) -> Path:
    """A job of a minute, whose storage all hosts see."""
    tree = {
        "name": "tiny",
        "method": "erm",
        "storage": str(folder / "store"),
        "data": {"source": "sample", "limit": 400, "rows_per_part": 200},
        "coreset": {"meta": "hold_out", "meta_per_class": 2},
        "train": {"model": "resnet20", "epochs": 1, "batch_size": 50},
        "resources": {"workers": 2},
    }
    return write_job(folder, tree)


def test_from_ray_up_to_nothing_left(tmp_path: Path) -> None:
    with hosts("laptop", "head", *GPU_HOSTS) as (made, _):
        laptop, head, *workers = made
        make_login(laptop, [head, *workers])
        configuration = filled_in(tmp_path)

        def typed(command: str, seconds: float = 300) -> str:
            """What a command says that is given in the root of the checkout on the laptop."""
            return laptop.shell(f"cd {ROOT}; export RAY_AUTH_MODE=token; {command}", seconds)

        def nodes() -> int:
            """How many `ray status` counts, the head among them."""
            status = typed(f"ray exec {configuration} 'ray status'")
            found = re.search(r"(\d+) local.cluster.node", status)
            return int(found[1]) if found else 0

        typed("ray get-auth-token --generate")
        typed(f"ray up --yes {configuration}")
        wait_for(lambda: nodes() == 3, 120)
        for host in (head, *workers):
            same = filecmp.dircmp(ROOT / "jobs", host.home / "cwerm/jobs")
            assert not same.left_only + same.right_only + same.diff_files
            assert (host.home / "cwerm/cwerm/pipeline.py").exists()

        with tunnel(laptop, configuration) as address:
            said = typed(f"cwerm submit {tiny(tmp_path)} --address {address}")
        assert "test accuracy" in said
        summary = json.loads((tmp_path / "store/runs/tiny/summary.json").read_text())
        assert summary["num_samples"] == 400

        typed(f"ray down --yes {configuration}")
        wait_for(lambda: not strangers(head), 30)
        assert all(strangers(worker) for worker in workers), "README: it stops the head alone"
        for name in GPU_HOSTS:
            typed(f"ssh root@{name} '~/cwerm-venv/bin/ray stop'")
        wait_for(lambda: not any(strangers(host) for host in made), 30)
