"""The command line as a user meets it: exit code, standard output, standard error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from commands import LITE0, Answer, Finished, process, write_job

from cwerm.cli import main


@pytest.fixture
def cwerm(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command in this process, through the entry point; C++ libraries' output counts, too."""

    def call(*arguments: str | Path) -> Answer:
        capfd.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Answer(leaving.value.code or 0, out, err)

    return call


@pytest.fixture(scope="session")
def finished(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One small run in a process of its own, shared by all tests."""
    folder = tmp_path_factory.mktemp("finished")
    tree = {
        "name": "small",
        "storage": str(folder / "store"),
        "data": {"source": str(small_data), "rows_per_part": 100},
        "features": {"weights": LITE0, "image_size": 32, "batch_size": 50},
        "coreset": {"ratio": 0.1, "meta": "hold_out", "meta_per_class": 2},
        "reweight": {"method": "metaweightnet", "epochs": 4},
        "broadcast": {"method": "nearest"},
        "train": {"model": "resnet20", "epochs": 1, "batch_size": 50},
        "resources": {"workers": 1},
    }
    job = write_job(folder, tree)
    return Finished(job, folder / "store", process("run", job))


@pytest.fixture
def refused(finished: Finished, cwerm: Callable[..., Answer]) -> Callable[..., None]:
    """Run the finished job with changes: it must be refused and leave everything as it was."""

    def check(changes: Sequence[str], *words: str) -> None:
        before = finished.files()
        cwerm("run", finished.job, *changes).refused(*words)
        assert finished.files() == before

    return check
