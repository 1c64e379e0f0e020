"""Who has no token, or is on another host, gets into no Ray session that a command or a test starts."""

from __future__ import annotations

import os
import re
import secrets
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import psutil
import pytest

from cluster.hosts import hosts, obstacle, wait_for

needs_hosts = pytest.mark.skipif(obstacle("ss") is not None, reason=str(obstacle("ss")))
# A method that each of Ray's servers has, by which one asks whether a token is wanted
METHODS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.ReporterService/GetTraceback",
)
REACH = """
import socket, sys
for port in sys.argv[2:]:
    try:
        socket.create_connection((sys.argv[1], int(port)), 2).close()
        print(port)
    except OSError:
        pass
"""


def processes() -> list[psutil.Process]:
    """This one and all living ones below it, Ray's among them; not the S3 server of another test."""
    me = psutil.Process()
    living = [p for p in me.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    return [me, *(process for process in living if "weed" not in process.name())]


def listening(family: list[psutil.Process]) -> dict[int, str]:
    """The address of each port where one of the processes listens."""
    found = {}
    numbers = {process.pid for process in family}
    for line in subprocess.check_output(["ss", "-Hltnp"], text=True).splitlines():
        if numbers & {int(number) for number in re.findall(r"pid=(\d+)", line)}:
            address, _, port = line.split()[3].rpartition(":")
            found[int(port)] = address.strip("[]").removeprefix("::ffff:")
    return found


@pytest.fixture
def ports(ray_session: None) -> Iterator[list[int]]:
    """Where Ray listens, with an actor that runs."""
    import ray

    class Guest:
        def here(self) -> None: ...

    actor = ray.remote(num_cpus=0)(Guest).remote()
    ray.get(actor.here.remote())
    yield sorted(listening(processes()))
    ray.kill(actor)


@needs_hosts
def test_a_session_listens_where_no_other_host_reaches_it(ports: list[int]) -> None:
    assert len(ports) >= 6, "the driver, GCS, raylet, its agents and a worker"
    addresses = {a for p, a in listening(processes()).items() if p in ports}
    assert addresses == {"127.0.0.1"}
    with hosts("stranger") as ((stranger,), own), socket.create_server((own, 0)) as door:
        open_one = door.getsockname()[1]
        reached = stranger.run(sys.executable, "-c", REACH, own, *map(str, [*ports, open_one]))
    assert reached.split() == [str(open_one)]


def refusals(port: int, token: str | None) -> list[str]:
    """What a server says to whoever comes with that token: gRPC's code, or HTTP's."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    answers = []
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        for method in METHODS:
            try:
                channel.unary_unary(method)(b"", timeout=5, metadata=metadata)
                answers.append("let in")
            except grpc.RpcError as error:
                answers.append(error.code().name)
    return answers


@needs_hosts
@pytest.mark.parametrize("token", [None, "0" * 64], ids=["no token", "wrong token"])
def test_who_has_no_token_is_refused_on_this_host_too(ports: list[int], token: str | None) -> None:
    said = {port: refusals(port, token) for port in ports}
    assert not [port for port, answers in said.items() if "let in" in answers]
    refusing = {port for port, answers in said.items() if "UNAUTHENTICATED" in answers}
    assert len(refusing) >= 6, f"GCS, raylet's two, driver, worker and agent: {said}"
    codes = {port: http_code(port, token) for port in set(ports) - refusing}
    assert codes, "an agent that answers by HTTP; the port of the other one may be taken"
    assert set(codes.values()) <= {401, 403, None}, codes


def http_code(port: int, token: str | None) -> int | None:
    """What it says by HTTP to whoever comes with that token; None where it hangs up."""
    request = Request(f"http://127.0.0.1:{port}/api/version")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urlopen(request, timeout=5) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except ConnectionResetError:
        return None


def test_the_token_is_in_the_memory_of_the_session_alone(ray_session: None) -> None:
    import ray

    token = ray.get(ray.remote(num_cpus=0)(lambda: os.environ["RAY_AUTH_TOKEN"]).remote())
    assert len(token) == 64
    assert token not in os.environ.values()
    commands = []
    for process in processes():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            commands.append(" ".join(process.cmdline()))
    assert len(commands) > 5
    assert not [command for command in commands if token in command]
    folder = Path(ray._private.worker._global_node.get_session_dir_path())
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if token.encode() in path.read_bytes()]
    # Ray lets everybody write below its folder
    assert stat.S_IMODE(folder.parents[1].stat().st_mode) == 0o700
    assert folder.parents[1].stat().st_uid == os.geteuid()


@contextmanager
def forwarded(address: str, port: int) -> Iterator[int]:
    """A port of that address that leads to one of the loopback interface, as if Ray listened there."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def lead(outer: socket.socket) -> None:
        with outer, suppress(OSError), socket.create_connection(("127.0.0.1", port)) as inner:
            back = threading.Thread(target=copy, args=(inner, outer), daemon=True)
            back.start()
            copy(outer, inner)
            back.join()

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=lead, args=(door.accept()[0],), daemon=True).start()

    with socket.create_server((address, 0)) as door:
        threading.Thread(target=serve, daemon=True).start()
        yield door.getsockname()[1]


@pytest.mark.slow
@needs_hosts
def test_no_node_and_no_driver_joins_from_another_host(ray_session: None) -> None:
    """Even where its ports are reached: a node joins with the token, and with no other one."""
    import ray

    own_token = ray.get(ray.remote(num_cpus=0)(lambda: os.environ["RAY_AUTH_TOKEN"]).remote())
    port = int(ray.get_runtime_context().gcs_address.rpartition(":")[2])
    with hosts("stranger") as ((stranger,), own), forwarded(own, port) as door:

        def attempt(token: str | None, command: str) -> subprocess.CompletedProcess[str]:
            mode = f"token RAY_AUTH_TOKEN={token}" if token else "disabled"
            script = f"export RAY_AUTH_MODE={mode} RAY_USAGE_STATS_ENABLED=0; timeout 90 {command}"
            words = stranger.command("bash", "-c", script)
            return subprocess.run(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )

        node = (
            f"ray start --address={own}:{door} --node-ip-address={stranger.address} --num-cpus=1 "
            "--object-store-memory=100000000"
        )
        driver = f"python -c 'import ray; ray.init(\"{own}:{door}\"); print(ray.nodes())'"
        for token in (None, secrets.token_hex(32)):
            for command in (node, driver):
                done = attempt(token, command)
                assert done.returncode not in (0, 124), done.stdout
                assert "NodeManagerAddress" not in done.stdout
            assert len(ray.nodes()) == 1
            stranger.shell("ray stop --force")
        done = attempt(own_token, node)
        assert done.returncode == 0, done.stdout
        stranger.shell("ray stop")
        wait_for(lambda: sum(node["Alive"] for node in ray.nodes()) == 1, 120)
