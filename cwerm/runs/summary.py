"""``summary.json`` and the addresses in it, read with the care that a stranger's words need."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from cwerm.errors import UserError
from cwerm.job.tree import Job, parse_job
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.manifest import MOST, is_inside
from cwerm.store.storage import at_once, open_storage, parse_mapping

Count = Annotated[int, Field(ge=0, le=MOST)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Summary(BaseModel, strict=True):
    """What commands read of a summary; it holds more."""

    name: str
    method: Literal["erm", "w-erm", "c-random-erm", "c-moderate-erm", "cw-erm"]
    control: str
    seed: int
    validation_accuracy: Number | None = None
    test_accuracy: Number
    test_accuracy_top5: Number | None
    train_accuracy: Number
    test_expected_calibration_error: Number
    test_per_class_accuracy: list[Number | None]
    class_names: list[str]
    num_samples: Count
    num_test_samples: Count
    num_rejects: Count
    seconds: dict[str, Number]
    reused: list[str]
    artifacts: dict[str, str | list[str]]
    weights: dict[str, Number | None] = Field(default_factory=dict)


def load_summary(folder: str) -> dict[str, Any]:
    """``summary.json`` of a finished run.

    Raises:
        UserError: the folder holds no summary, or a damaged one.
    """
    try:
        data = open_storage(folder).read_bytes("summary.json")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UserError(
            f"{folder}: no summary.json; give the folder of a finished run, such as "
            "cwerm-store/runs/quickstart"
        ) from None
    try:
        summary = parse_mapping(data)
        checked = _Summary.model_validate(summary)
        if len(checked.class_names) != len(checked.test_per_class_accuracy):
            raise ValueError("class_names and test_per_class_accuracy differ in length")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(folder, f"{place}: {first['msg'].lower()}") from None
    except ValueError as error:
        raise _damaged(folder, str(error)) from None
    return summary


def job_of(folder: str) -> Job:
    """``job.yaml`` of a run.

    Raises:
        UserError: the folder holds none, or a damaged one.
    """
    try:
        tree = yaml.safe_load(open_storage(folder).read_bytes("job.yaml"))
        if not isinstance(tree, dict):
            raise UserError("it is no mapping")
        return parse_job(tree)
    except (OSError, yaml.YAMLError, UserError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{folder}: job.yaml can't be read ({reason}); run the job again, which takes up what is there"
        ) from None


def address(folder: str, summary: dict[str, Any], name: str) -> tuple[str, str]:
    """The store and the path in it of what a run made, of the first part where there are several.

    The store is that around the run's folder, which may have moved, else the one that the summary names.

    Raises:
        UserError: the summary names no such thing, or a place outside of the artifacts.
    """
    given = summary["artifacts"].get(name) or ""
    uri = given if isinstance(given, str) else given[0]
    former, found, path = uri.rpartition("/artifacts/")
    if not found or not is_inside(path):
        raise _damaged(folder, f"artifacts.{name} is no place in a store")
    root = open_storage(folder).root.rpartition("/runs/")[0]
    return root or former, f"artifacts/{path}"


class FinishedRun:
    """What a run left in its folder and in the store around it; each is read once, when it is asked for."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._found: dict[str, tuple[ArtifactStore, Artifact]] = {}

    @cached_property
    def summary(self) -> dict[str, Any]:
        """``summary.json``; raises as `load_summary`."""
        return load_summary(self.folder)

    @cached_property
    def job(self) -> Job:
        """``job.yaml``; raises as `job_of`."""
        return job_of(self.folder)

    def look_up(self, names: Mapping[str, str]) -> None:
        """Find several at once, by the stage; what is gone is told when it is asked for."""

        def look(stage: str, name: str) -> None:
            with suppress(UserError):
                self.artifact(name, stage)

        made = {stage: name for stage, name in names.items() if name in self.summary["artifacts"]}
        at_once(look, made.keys(), made.values())

    def artifact(self, name: str, stage: str) -> tuple[ArtifactStore, Artifact]:
        """The store, and the artifact of a stage that holds ``name``, as the run left them.

        Raises:
            UserError: as `load_summary` and `address`, or it is no longer there.
        """
        if stage in self._found:
            return self._found[stage]
        root, path = address(self.folder, self.summary, name)
        store = ArtifactStore(open_storage(root))
        _, made_by, key, *_ = [*path.split("/"), "", ""]
        # what of it is read has its checksum compared; the rest need not be there
        artifact = store.load(stage, key) if made_by == stage and key else None
        if artifact is None:
            verb = "are" if name.endswith("s") else "is"
            raise UserError(
                f"{self.folder}: its {name} {verb} no longer in the store; run the job again"
            )
        self._found[stage] = store, artifact
        return store, artifact


def _damaged(folder: str, reason: str) -> UserError:
    return UserError(f"{folder}: summary.json is damaged ({reason}); run the job again")
