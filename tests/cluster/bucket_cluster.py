"""A Ray cluster of three hosts with addresses of their own, a laptop beside it, and a bucket."""

from __future__ import annotations

import fnmatch
import json
import secrets
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.request import Request, urlopen

import pytest
from object_store import ACCESS_KEY, BUCKET, SECRET_KEY, Server, _program

from cluster.cluster_files_checks import ROOT
from cluster.hosts import Host, hosts, wait_for

START_SECONDS = 120


class BridgeServer(Server):
    """The S3 server at an address that the hosts reach."""

    def __init__(self, program: str, address: str) -> None:
        self._reached_at = address
        super().__init__(program)

    def start(self) -> None:
        self._command = [word.replace("127.0.0.1", self._reached_at) for word in self._command]
        self.address = f"http://{self._reached_at}:{self.port}"
        super().start()


@dataclass
class Cluster:
    """A head that computes nothing, two workers of so many CPUs, and who submits."""

    laptop: Host
    head: Host
    workers: list[Host]
    token: str
    server: BridgeServer
    cpus: dict[str, int]

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:8265"

    def script(self, command: str) -> str:
        """The command in the environment that cluster/README.md asks for."""
        return (
            f"source {ROOT}/cluster/env.sh; export AWS_ENDPOINT_URL_S3={self.server.address} "
            f"AWS_REGION=us-east-1; {command}"
        )

    def start(self, host: Host, options: str) -> None:
        host.shell(
            self.script(
                f"ray start --node-ip-address={host.address} --object-store-memory=300000000 {options}"
            )
        )

    def start_worker(self, host: Host) -> None:
        cpus = self.cpus[host.name]
        self.start(host, f"--address={self.head.address}:6379 --num-cpus={cpus} --num-gpus=0")

    def alive(self) -> set[str]:
        """The names of the hosts that the head counts on."""
        request = Request(
            f"{self.dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urlopen(request, timeout=30) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
        names = {host.address: host.name for host in (self.head, *self.workers)}
        return {names[node["node_ip"]] for node in nodes if node["state"] == "ALIVE"}

    def wait_until_whole(self) -> None:
        wait_for(lambda: self.alive() == {"head", "first", "second"}, START_SECONDS)

    @contextmanager
    def submit(
        self, storage: str, *options: str, job: str = "paper/sample.yaml"
    ) -> Iterator[subprocess.Popen[str]]:
        """``cwerm submit`` of one of ``jobs/`` on the laptop; afterwards nothing of it runs."""
        words = [
            *("cwerm", "submit", str(ROOT / "jobs" / job), *options),
            *("--address", self.dashboard, "--storage", storage),
        ]
        with subprocess.Popen(
            self.laptop.command("bash", "-c", self.script(f"exec {shlex.join(words)}")),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            try:
                yield running
            finally:
                self.laptop.end("cwerm submit")
                self.head.end("cwerm.cli")

    def objects(self, storage: str, pattern: str) -> list[str]:
        """Keys below the storage that match."""
        prefix = storage.removeprefix(f"s3://{BUCKET}/") + "/"
        pages = self.server.client().get_paginator("list_objects_v2")
        keys = [
            entry["Key"].removeprefix(prefix)
            for page in pages.paginate(Bucket=BUCKET, Prefix=prefix)
            for entry in page.get("Contents", ())
        ]
        return fnmatch.filter(keys, pattern)


@contextmanager
def three_hosts(first: int = 2, second: int = 2) -> Iterator[Cluster]:
    """The cluster, whole, with so many CPUs of its workers.

    The standard AWS variables of this process point to its bucket.
    """
    program = _program()
    with (
        hosts("laptop", "head", "first", "second") as (made, own),
        pytest.MonkeyPatch.context() as env,
    ):
        laptop, head, *workers = made
        server = BridgeServer(program, own)
        try:
            for name, value in (
                ("AWS_ENDPOINT_URL_S3", server.address),
                ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
                ("AWS_REGION", "us-east-1"),
            ):
                env.setenv(name, value)
            cluster = Cluster(laptop, head, workers, secrets.token_hex(32), server, {})
            cluster.cpus |= {"first": first, "second": second}
            for host in made:
                (host.home / ".ray").mkdir()
                (host.home / ".ray/auth_token").write_text(cluster.token)
                (host.home / ".aws").mkdir()
                (host.home / ".aws/credentials").write_text(
                    f"[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"
                )
            cluster.start(
                head,
                f"--head --port=6379 --num-cpus=0 --num-gpus=0 --dashboard-host={head.address}",
            )
            for worker in workers:
                cluster.start_worker(worker)
            cluster.wait_until_whole()
            yield cluster
        finally:
            server.remove()
