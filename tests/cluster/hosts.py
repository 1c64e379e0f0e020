"""Hosts on this machine that differ as real ones do, on a network of their own.

Each has an address, a table of processes, a host name, a home, /tmp/ray, /dev/shm and /run of its own,
made of Linux namespaces on one bridge; the rest of the file system they share. The caller reaches them
through the bridge, which has an address, too. Whatever way the caller ends, they end with it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pwd
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

NAMESPACES = ("--net", "--pid", "--mount", "--uts", "--ipc")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST_SECONDS = 20
# Process 1 of a host. Bash takes in every orphan that ends. When its input ends it ends, too, and the
# kernel then kills all other processes of the host.
FIRST_PROCESS = """
set -e
mount -t tmpfs -o size=1g tmpfs /dev/shm
mkdir -p /tmp/ray
mount --bind "$1/ray" /tmp/ray
for name in hosts passwd resolv.conf; do mount --bind "$1/$name" "/etc/$name"; done
mount -t tmpfs tmpfs /run
mkdir /run/sshd
cat "$1/hostname" > /proc/sys/kernel/hostname
echo ready
while read -r _; do :; done
"""


def obstacle(*programs: str) -> str | None:
    """Why hosts can't be made here, and these programs not run on them; None where all is well."""
    if sys.platform != "linux" or os.geteuid():
        return "hosts of their own need Linux and root"
    for program in ("ip", "unshare", "nsenter", "mount", *programs):
        if shutil.which(program, path=SYSTEM_PATH) is None:
            return f"hosts of their own need the program {program}"
    probe = ["unshare", *NAMESPACES, "--fork", "--mount-proc", "true"]
    if subprocess.run(probe, capture_output=True).returncode:
        return "root may not make namespaces here"
    return None


class Host:
    """One host that runs."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name, self.address, self.folder = name, address, folder
        self.home = folder / "home"
        self.link = ""
        self.first = 0

    def command(self, *words: str | Path) -> list[str]:
        """The command line that runs ``words`` there, in a login's bare environment."""
        environment = {
            "HOME": self.home,
            "PATH": f"{self.home}/cwerm-venv/bin:{SYSTEM_PATH}",
            "USER": "root",
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
        }
        return [
            *("nsenter", f"--target={self.first}", *NAMESPACES, "--wd=" + str(self.home)),
            *("env", "--ignore-environment", *(f"{k}={v}" for k, v in environment.items())),
            *map(str, words),
        ]

    def run(self, *words: str | Path, seconds: float = 120) -> str:
        """What a command printed, which must succeed."""
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{self.name}: {shlex.join(map(str, words))}: {done.stdout}"
        return done.stdout

    def shell(self, script: str, seconds: float = 120) -> str:
        """What a bash script printed, which must succeed."""
        return self.run("bash", "-c", script, seconds=seconds)

    def cut(self) -> None:
        """Pull its cable: what it sends is lost, and nobody is told."""
        _ip(f"link set {self.link} down")

    def join(self) -> None:
        """Plug the cable in again."""
        _ip(f"link set {self.link} up")

    def processes(self) -> dict[int, str]:
        """The command lines of what runs there by the caller's process id, without process 1."""
        here = os.readlink(f"/proc/{self.first}/ns/pid")
        found = {}
        for process in psutil.process_iter():
            try:
                if process.pid != self.first and os.readlink(f"/proc/{process.pid}/ns/pid") == here:
                    found[process.pid] = " ".join(process.cmdline()) or process.name()
            except (psutil.Error, OSError):  # it has ended
                continue
        return found

    def end(self, title: str, how: int = signal.SIGKILL) -> None:
        """Signal all that runs there with this in its command line."""
        for identifier, command in self.processes().items():
            if title in command:
                with suppress(ProcessLookupError):
                    os.kill(identifier, how)


@contextmanager
def hosts(*names: str) -> Iterator[tuple[list[Host], str]]:
    """Make a host for each name: the hosts, and this process's own address among them.

    Each knows all names, and finds the environment that runs this test at ``~/cwerm-venv``.
    """
    network = _free_network()
    own, *addresses = [str(a) for a, _ in zip(network.hosts(), range(len(names) + 1), strict=False)]
    bridge = f"cw{os.getpid()}"
    known = "".join(f"{a} {n}\n" for a, n in zip(addresses, names, strict=True))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hosts")))
        stack.enter_context(_bridge(bridge, f"{own}/{network.prefixlen}"))
        made = []
        for index, (name, address) in enumerate(zip(names, addresses, strict=True)):
            host = Host(name, address, folder / name)
            _furnish(host, f"127.0.0.1 localhost\n{own} caller\n{known}")
            host.first = stack.enter_context(_running(host.folder))
            host.link = f"{bridge}h{index}"
            _ip(f"link add {host.link} type veth peer name eth0 netns {host.first}")
            # the kernel would do it, too, but some time later
            stack.callback(_ip, f"link delete {host.link}")
            _ip(f"link set {host.link} master {bridge} up")
            host.shell(
                "ip link set lo up; ip link set eth0 up && "
                f"ip address add {address}/{network.prefixlen} dev eth0 && ip route add default via {own}"
            )
            made.append(host)
        yield made, own


def _furnish(host: Host, known: str) -> None:
    """The files of its own, as a fresh login on a fresh host finds them."""
    skeleton = Path("/etc/skel")
    if skeleton.exists():
        shutil.copytree(skeleton, host.home)
    host.home.mkdir(parents=True, exist_ok=True)
    host.folder.joinpath("ray").mkdir()
    # by a link, so that `python` there is that of a virtual environment, with its packages
    host.home.joinpath("cwerm-venv").symlink_to(sys.prefix)
    root = pwd.getpwuid(0).pw_dir  # stays visible: the interpreter may lie in it
    lines = [
        line.replace(f":{root}:", f":{host.home}:") if line.startswith("root:") else line
        for line in Path("/etc/passwd").read_text().splitlines()
    ]
    texts = {
        "hosts": known,
        "hostname": host.name,
        "passwd": "\n".join(lines) + "\n",
        "resolv.conf": "",  # nobody to ask
    }
    for name, text in texts.items():
        host.folder.joinpath(name).write_text(text)


@contextmanager
def _running(folder: Path) -> Iterator[int]:
    """Process 1 of a host; all of the host has ended afterwards."""
    process = subprocess.Popen(
        [
            *("unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc"),
            *("bash", "-c", FIRST_PROCESS, "host", str(folder)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the tests
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n", "a host did not start"
        (first,) = psutil.Process(process.pid).children()
        yield first.pid
    finally:
        process.stdin.close()
        try:
            process.wait(HOST_SECONDS)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@contextmanager
def _bridge(name: str, address: str) -> Iterator[None]:
    """A bridge that a process of its own removes, even when this one is killed."""
    _ip(f"link add {name} type bridge")
    remover = subprocess.Popen(
        ["sh", "-c", f"read _; ip link delete {name}"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert remover.stdin
    try:
        _ip(f"address add {address} dev {name}")
        _ip(f"link set {name} up")
        yield
    finally:
        remover.stdin.close()
        remover.wait()


def _free_network() -> ipaddress.IPv4Network:
    """A network of 254 addresses that nobody here knows."""
    taken = [
        ipaddress.IPv4Network(route["dst"], strict=False)
        for route in json.loads(_ip("-4 -json route show"))
        if route["dst"] != "default"
    ]
    while True:
        chosen = ipaddress.IPv4Network(
            (f"10.{random.randint(64, 254)}.{random.randint(0, 255)}.0", 24)
        )
        if not any(chosen.overlaps(other) for other in taken):
            return chosen


def _ip(arguments: str) -> str:
    command = ["ip", *arguments.split()]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def wait_for(reached: Callable[[], Any], seconds: float) -> Any:
    """What ``reached`` gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)
    return found
