"""A stage as a value: what it needs, what it sees of the job, and how it makes its artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from cwerm.job.surroundings import S3, Resources
from cwerm.job.tree import Job
from cwerm.stages.outside import Outside
from cwerm.store.artifacts import Artifact, ArtifactStore, artifact_key
from cwerm.store.writing import Writer

Inputs = Mapping[str, Artifact]  # by the name of the stage that made it


class Settings(BaseModel):
    """What a stage sees of the job: all of it is part of the key of what it makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Context:
    """How a stage does its work, never what comes out: the same settings give the same artifact."""

    name: str
    resources: Resources
    s3: S3
    places: Mapping[str, str]
    limits: Mapping[str, Any]
    """By key of the job, how much is held at once, or allowed."""
    outside: Outside
    store: ArtifactStore
    writer: Writer

    @classmethod
    def of(cls, job: Job, outside: Outside, store: ArtifactStore, writer: Writer) -> Context:
        """What the job says of how."""
        limits = {
            "data.max_rejects": job.data.max_rejects,
            "features.batch_size": job.features.batch_size,
            "broadcast.max_index_bytes": job.broadcast.max_index_bytes,
            "train.keep_checkpoints": job.train.keep_checkpoints,
            "train.checkpoint_minutes": job.train.checkpoint_minutes,
        }
        how = (job.name, job.resources, job.s3, job.places)
        return cls(*how, limits, outside, store, writer)


def always(*names: str) -> Callable[[Job], tuple[str, ...]]:
    """The same needs for every job."""
    return lambda _: names


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline. To add one, write its file and name it in the pipeline."""

    name: str
    version: int
    """Raised when the same settings and inputs would give another result."""
    needs: Callable[[Job], tuple[str, ...]]
    """The stages whose artifacts it reads, for this job."""
    settings: Callable[[Job, Outside], Any]
    """What of the job it sees: hashed into the key, and all that `run` gets of it."""
    run: Callable[[Any, Inputs, Context], Artifact]
    in_passing: bool = False
    """It takes no time: made where it is needed, with no line of its own."""

    def key(self, settings: Settings, inputs: list[str]) -> str:
        """The key of what it makes of inputs with these keys."""
        return artifact_key(self.name, self.parameters(settings), inputs)

    def parameters(self, settings: Settings) -> dict[str, Any]:
        """The settings as plain values, with the version."""
        return {"version": self.version, **settings.model_dump(exclude_none=True)}
