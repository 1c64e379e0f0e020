"""The sections of a job that say where and how it runs, and change nothing of what comes out."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from cwerm.values import Count, Section, Text

ENDPOINT = r"^https?://[^@\s]+$"


def is_endpoint(value: str) -> str:
    """The address of a server, as it is.

    Raises:
        ValueError: it is none, or holds credentials.
    """
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in value or any(character.isspace() for character in value):
        raise ValueError("should be http://HOST:PORT or https://HOST, without credentials")
    return value


class S3(Section):
    """How to reach ``s3://`` addresses; the standard AWS variables and files say what is not given.

    Credentials come from there alone: a job holds none.
    """

    endpoint: (
        Annotated[Text, AfterValidator(is_endpoint), Field(json_schema_extra={"pattern": ENDPOINT})]
        | None
    ) = None
    """Address of a server other than AWS, such as ``https://s3.example.com``."""
    region: Text | None = None
    """The bucket's region."""
    profile: Text | None = None
    """Profile in ``~/.aws``, on every node."""
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """Bucket in the path (``endpoint/bucket``) or in the host name (``bucket.endpoint``)."""
    requester_pays: bool = False
    """Read buckets whose readers pay for it."""


class Resources(Section):
    """How much of the machine or cluster to use."""

    workers: Count | Literal["auto"] = "auto"
    """Parallel workers of every distributed stage: the GPUs there are, or else up to 8 CPUs."""
    cpu_workers: Count | Literal["auto"] = "auto"
    """Parallel workers of what needs no GPU, where there are GPUs: up to 8 of the CPUs. Where there are
    none, it is ``workers``."""
    accelerator_type: Text | None = None
    """The type that GPUs must be of, in Ray's names, such as ``H100`` or ``A10G``, on a cluster of several;
    others then count as none."""
    min_workers: Count | None = None
    """Training begins, and goes on after a loss, with so few, and takes up more as they come; where not
    given, it waits for all."""
    wait_minutes: Annotated[float, Field(ge=0)] = 10.0
    """How long a run waits for what the cluster has lost and it can't go on without, before it ends."""
    address: Text | None = None
    """Ray cluster to join; a local one is started where neither this nor RAY_ADDRESS is set."""

    @model_validator(mode="after")
    def _fewest_are_no_more_than_all(self) -> Resources:
        if self.min_workers and self.workers != "auto" and self.min_workers > self.workers:
            raise ValueError(
                f"min_workers is {self.min_workers} and workers {self.workers}; ask for no more"
            )
        return self
