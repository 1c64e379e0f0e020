"""Checks of the shell scripts and the Dockerfile in ``cluster/``."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import PackageNotFoundError, distribution

from packaging.specifiers import SpecifierSet

from cluster.cluster_files_checks import (
    HEALTH,
    ROOT,
    check_head_options,
    constraints,
    read,
    require,
    start_options,
)

# What the script uses of `man sbatch`; Slurm itself refuses others, but only when the job is submitted.
SBATCH_OPTIONS = {
    *("job-name", "output", "time", "requeue", "signal", "nodes", "ntasks-per-node"),
    *("cpus-per-task", "gpus-per-node", "mem"),
}

QUICKSTART = "*project['optional-dependencies']['quickstart']"


def check_shell(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    require(done.returncode == 0, done.stderr)


def check_environment(text: str) -> None:
    """What a shell that has sourced the text gives its children."""
    done = subprocess.run(
        ["bash", "-c", f"set -eu; {text}\nenv"],
        capture_output=True,
        text=True,
        env={"HOME": "/home/x", "PATH": "/usr/bin:/bin"},
    )
    require(done.returncode == 0, done.stderr)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    require(found.get("RAY_AUTH_MODE") == "token", "no token")
    require("RAY_AUTH_TOKEN" not in found, "the token is in the file")
    for name in HEALTH:
        require(int(found[f"RAY_health_check_{name}"]) > 0, name)


def check_slurm(text: str) -> None:
    """Options that sbatch and Ray know, a token, and a head without work on a node of its own."""
    check_shell(text)
    parts = text.split("\n#SBATCH hetjob\n")
    require(len(parts) == 2, "two components")
    for part in parts:
        options = re.findall(r"^#SBATCH --([a-z-]+)", part, re.MULTILINE)
        require(len(options) == len(re.findall("^#SBATCH", part, re.MULTILINE)), "no option")
        require(set(options) <= SBATCH_OPTIONS, f"unknown: {set(options) - SBATCH_OPTIONS}")
        require({"nodes", "time", "mem", "cpus-per-task"} <= set(options), "resources")
    require("--gpus-per-node" in parts[1] and "--gpus-per-node" not in parts[0], "GPUs of workers")
    joined = re.sub(r"\$(\(\(.*?\)\)|\w+)", "1", text.replace("\\\n", " "))  # numbers for variables
    head, worker = map(start_options, re.findall(r"ray start --[^\n]+", joined))
    require(head["head"] and head["dashboard_host"] == "127.0.0.1", "head")
    check_head_options(head)
    require(worker["block"] and not worker["head"], "worker")
    require("export RAY_AUTH_TOKEN" in text and "source cluster/env.sh" in text, "no token")


def check_dockerfile(text: str) -> None:
    """A base that the lock fits, the lock used, sources that the build gets, another user than root."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.split(" ", 1) for line in joined.splitlines() if line and line[0] != "#"]
    known = {"FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "CMD"}
    require({word for word, _ in lines} <= known, "unknown instruction")
    base = re.fullmatch(r"python:(\d+\.\d+)-slim\S*", dict(lines)["FROM"])
    require(base, "base image")
    check_python(base[1] if base else "")
    admitted = {line[1:] for line in read("Dockerfile.dockerignore").splitlines() if line[0] == "!"}
    for word, rest in lines:
        if word == "COPY":
            for source in rest.split()[:-1]:
                require((ROOT / source).exists(), f"COPY: {source} is not there")
                require(source in admitted, f"COPY: {source} is ignored")
        for part in rest.split("&&") if word == "RUN" else ():
            locked = "--constraint constraints.txt" in part or "--no-deps" in part
            require("pip install" not in part or locked, f"not locked: {part}")
            require("pip install" not in part or "--no-cache-dir" in part, f"large layer: {part}")
    require(QUICKSTART in text, "not what the first job needs")
    users = [rest for word, rest in lines if word == "USER"]
    require(users and int(users[-1]) > 0, "runs as root")


def check_python(version: str) -> None:
    """Every locked package that is installed here has a release for that Python."""
    for package in constraints():
        try:
            needed = distribution(package).metadata["Requires-Python"] or ""
        except PackageNotFoundError:
            continue
        require(SpecifierSet(needed).contains(f"{version}.9"), f"{package} needs Python {needed}")
