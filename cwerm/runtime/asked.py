"""What work on Ray is asked for; a `Job` says all of it, and so does what a stage gets of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cwerm.job.surroundings import S3, Resources


class Run(Protocol):
    """How a run is to be done, not what: its name, its workers, and the places that nodes must reach."""

    @property
    def name(self) -> str:
        """Of the run folder."""

    @property
    def resources(self) -> Resources:
        """Workers, waiting and the cluster's address."""

    @property
    def s3(self) -> S3:
        """How to reach buckets."""

    @property
    def places(self) -> Mapping[str, str]:
        """By key of the job, the paths and URIs that every node must see."""
