"""From a job to its stages and their keys, and from a key to the artifact: found, or made by one process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Context, Stage
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.beside import WriteBehind
from cwerm.store.claims import claimed
from cwerm.store.storage import at_once
from cwerm.store.writing import Writer


@dataclass(frozen=True)
class StageResult:
    """What one stage gave, and whether it was in the store already."""

    artifact: Artifact
    seconds: float
    reused: bool


@dataclass(frozen=True)
class Node:
    """A stage as one job asks for it."""

    stage: Stage
    settings: Any
    key: str
    needs: tuple[str, ...]


class Plan:
    """The stages that a job needs, in order, each with its settings and its key, made once and here alone."""

    def __init__(
        self, pipeline: Sequence[Stage], job: Job, store: ArtifactStore, last: Sequence[str]
    ) -> None:
        self.job, self.store, self.outside = job, store, Outside(job)
        self.made: dict[str, Artifact] = {}
        """The artifacts that this plan has found or made."""
        self._missing: set[str] = set()
        self._is_looked_up = False
        self._behind: WriteBehind | None = None
        wanted = {*last}
        for stage in reversed(pipeline):
            wanted |= set(stage.needs(job)) if stage.name in wanted else set()
        shown = [stage.name for stage in pipeline if not stage.in_passing]
        self.names = tuple(name for name in shown if name in wanted)
        self._stages = {stage.name: stage for stage in pipeline}
        self._nodes: dict[str, Node] = {}

    def rename(self, name: str) -> None:
        """Give the run another name, on which no key depends."""
        self.job = self.job.model_copy(update={"name": name})

    def settle(self, job: Job) -> None:
        """Go on with a job that says more; what is made already does not depend on what it says anew."""
        self.job, self._nodes = job, {}
        self._missing.clear()
        self._is_looked_up = False

    def __getitem__(self, name: str) -> Node:
        """The node of a stage; what lies outside is looked at the first time."""
        if name not in self._nodes:
            stage = self._stages[name]
            settings, needs = stage.settings(self.job, self.outside), stage.needs(self.job)
            key = stage.key(settings, [self[needed].key for needed in needs])
            self._nodes[name] = Node(stage, settings, key, needs)
        return self._nodes[name]

    def find(self, name: str) -> Artifact | None:
        """The artifact of a stage where it is made already."""
        if name not in self.made and (found := self.store.find(name, self[name].key)):
            self.made[name] = found
        return self.made.get(name)

    def look_up(self) -> None:
        """Find what is made already of all stages at once, the first time.

        What is damaged is told at its turn; what is not there is looked for again once it is ours to make.
        """

        def look(name: str) -> None:
            with suppress(UserError):
                if self.find(name) is None:
                    self._missing.add(name)

        if self._is_looked_up:
            return
        for name in self.names:
            self[name]
        at_once(look, [*self._nodes])
        self._is_looked_up = True

    def is_made(self, name: str) -> bool:
        """Whether the artifact of a stage is in the store, without a look at its files."""
        if name in self._missing:
            return False
        return name in self.made or self.store.committed(name, self[name].key)

    def inputs(self, name: str) -> Mapping[str, Artifact]:
        """What a stage reads; what takes no time is made here.

        Raises:
            UserError: an earlier stage has not run.
        """
        for needed in self[name].needs:
            if self._stages[needed].in_passing:
                self.execute(needed)
        found = {needed: self.find(needed) for needed in self[name].needs}
        for needed, artifact in found.items():
            if artifact is None:
                raise UserError(
                    f"{needed}: no artifact for this job in '{self.store.storage.root}'; "
                    f"run `cwerm stage {needed} JOB` first, or `cwerm run JOB` for all stages"
                )
        return {needed: artifact for needed, artifact in found.items() if artifact}

    @contextmanager
    def in_a_row(self) -> Iterator[None]:
        """What a stage gives up once it has made its artifact is given up while the next one begins."""
        self._behind = WriteBehind()
        try:
            yield
            self._behind.finish()
        finally:
            self._behind = None

    def execute(self, name: str) -> StageResult:
        """Find the artifact of a stage whose inputs are there, or make it: one process for all."""
        started, node = time.perf_counter(), self[name]
        missing = name in self._missing and name not in self.made
        artifact = None if missing else self.find(name)
        reused = artifact is not None
        if artifact is None:
            inputs = self.inputs(name)
            with claimed(self.store, name, node.key, self._behind) as made_by_another:
                reused = made_by_another is not None
                artifact = made_by_another or self._make(node, inputs)
        self.made[name] = artifact
        return StageResult(artifact, time.perf_counter() - started, reused)

    def _make(self, node: Node, inputs: Mapping[str, Artifact]) -> Artifact:
        parameters = node.stage.parameters(node.settings)
        writer = Writer(self.store, node.stage.name, node.key, parameters)
        context = Context.of(self.job, self.outside, self.store, writer)
        return node.stage.run(node.settings, inputs, context)
