"""What lies outside of the store and is named by a job: found out once a run, where it starts.

A worker, which may see other files under the same names, never looks for itself.
"""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

from cwerm.data.catalog import open_source
from cwerm.data.confusions import read_confusions
from cwerm.data.corrections import Corrections
from cwerm.data.source import Source
from cwerm.errors import UserError, blame, renaming
from cwerm.job.tree import Job
from cwerm.stages.backbone_weights import identity_of, weights_file
from cwerm.store.storage import fetch

ROLES = ("source", "test", "validation", "trusted")  # the keys of `data` that name a source


class Outside:
    """The sources and the backbone's weights of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        named = {role: getattr(job.data, role) for role in ROLES} | {"source": job.data.sources}
        self._specs: dict[str, str | list[str]] = {role: s for role, s in named.items() if s}
        self.addresses = {
            role: spec if isinstance(spec, str) else ", ".join(spec)
            for role, spec in self._specs.items()
        }
        """Of the sources, by their key in ``data``; of several, all in one text."""
        self.weights_address: str = job.features.weights
        self.train_weights_address: str = job.train.weights

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The sources, opened, by their key in ``data``.

        Raises:
            UserError: as `open_source`, and naming the key.
        """
        data, opened = self._job.data, {}
        columns = {"image_column": data.image_column, "label_column": data.label_column}
        for role, spec in self._specs.items():
            with naming(role):
                opened[role] = open_source(spec, root=data.root, s3=self._job.s3, **columns)
        return opened

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """What tells the content of each source from any other; reads all that local sources hold."""
        found = {}
        for role, source in self.sources.items():
            with naming(role):
                found[role] = source.fingerprint()
        return found

    @cached_property
    def confusions(self) -> dict[str, dict[str, float]] | None:
        """By class, how often it is taken for which others; None where no such noise is asked for.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        data = self._job.data
        if data.noise != "confusion":
            return None
        return read_confusions(self.addresses["source"], data.confusions, self._job.s3)

    @cached_property
    def corrections(self) -> Corrections | None:
        """What a person decided on single labels.

        Raises:
            UserError: the file is not there, or is not one of decisions.
        """
        address = self._job.data.corrections
        if not address:
            return None
        with tempfile.TemporaryDirectory() as folder, blame(f"data.corrections: '{address}'"):
            try:
                return Corrections.read(fetch(address, Path(folder), self._job.s3).read_bytes())
            except OSError as error:
                raise UserError(
                    f"data.corrections: '{address}' can't be read ({error.strerror}); check the path"
                ) from None

    @cached_property
    def backbone_weights(self) -> str:
        """What tells ``features.weights`` from any other: a name, or a hash of the file.

        Raises:
            UserError: as `weights_file` and `identity_of`.
        """
        features = self._job.features
        with tempfile.TemporaryDirectory() as folder:
            weights = weights_file(features.weights, Path(folder), self._job.s3)
            return identity_of(features.backbone, weights)

    @cached_property
    def train_weights(self) -> str:
        """Likewise of ``train.weights``."""
        train = self._job.train
        with tempfile.TemporaryDirectory() as folder:
            weights = weights_file(train.weights, Path(folder), self._job.s3, "train.weights")
            return identity_of(train.model, weights)


def naming(role: str) -> AbstractContextManager[None]:
    """Name the key that the source comes from, in what goes wrong."""
    return renaming("data.source", f"data.{role}")
