"""What lies outside of the store, where some of it is not on this machine: that is known by its name."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cached_property

import numpy as np
from PIL import Image

from cwerm.data.catalog import ARRAY_SOURCES, DEFAULT_ROOT
from cwerm.data.public.arrays import ArraySource
from cwerm.data.source import Source
from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.stages.outside import Outside
from cwerm.store.storage import local_path

ABSENT = "absent: "  # and the name, in place of what tells a content from others


class OutsideByName(Outside):
    """The sources and weights of one job; public data sets and files of weights may be absent.

    Attributes:
        absent: what is not here, by the key that names it.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.absent: dict[str, str] = {}
        root = str(local_path(job.data.root or DEFAULT_ROOT))
        self._public: dict[str, ArraySource] = {}
        for role, spec in self._specs.items():
            name = spec if isinstance(spec, str) else spec[0] if len(spec) == 1 else ""
            if name in ARRAY_SOURCES:
                self._public[role] = ARRAY_SOURCES[name](root)
                if not self._public[role].is_there():
                    self.absent[f"data.{role}"] = name

    @cached_property
    def sources(self) -> dict[str, Source]:
        """Likewise, without a download."""
        given = self._specs
        here = {role: spec for role, spec in given.items() if f"data.{role}" not in self.absent}
        self._specs = here
        try:
            return {**super().sources, **self._absent_sources()}
        finally:
            self._specs = given

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of what is absent, its name."""
        found = {}
        for role, source in self.sources.items():
            absent = self.absent.get(f"data.{role}")
            found[role] = f"{ABSENT}{absent}" if absent else source.fingerprint()
        return found

    @cached_property
    def backbone_weights(self) -> str:
        """Likewise of the backbone's weights."""
        return self._weights(
            "features.weights", lambda: super(OutsideByName, self).backbone_weights
        )

    @cached_property
    def train_weights(self) -> str:
        """Likewise of the weights that training starts from."""
        return self._weights("train.weights", lambda: super(OutsideByName, self).train_weights)

    def num_images(self, role: str, split: str) -> int:
        """Images of a source's split, as listed; 0 where it has no such split."""
        if role in self._public:
            return self._public[role].num_images.get(split, 0)
        return sum(chunk.size for chunk in self.sources[role].chunks(split, 1 << 20))

    def side(self) -> int | None:
        """Pixels of the shorter side of the first image; None where that can't be read."""
        if "source" in self._public:
            return self._public["source"].side
        source = self.sources["source"]
        for chunk in source.chunks("train", 1)[:1]:
            for sample in source.read(chunk):
                return _shorter_side(sample.image)
        return None

    def _absent_sources(self) -> dict[str, Source]:
        return {role: s for role, s in self._public.items() if f"data.{role}" in self.absent}

    def _weights(self, key: str, identity: Callable[[], str]) -> str:
        try:
            return identity()
        except UserError as error:
            self.absent[key] = str(error)
            section = key.partition(".")[0]
            return f"{ABSENT}{getattr(self._job, section).weights}"


def _shorter_side(image: bytes | np.ndarray) -> int | None:
    if isinstance(image, np.ndarray):
        return min(image.shape[:2])
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return min(opened.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
