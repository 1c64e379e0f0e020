"""What ingest sees of a job."""

from __future__ import annotations

from cwerm.job.tree import Job
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Settings


class IngestSettings(Settings):
    """Which images are read, how, and what is drawn from them."""

    sources: dict[str, str]
    """By the key in ``data``, the fingerprint of its content."""
    image_column: str
    label_column: str
    rows_per_part: int
    test_fraction: float
    validation_fraction: float
    split_seed: int
    limit: int | None
    imbalance: float | None

    @classmethod
    def of(cls, job: Job, outside: Outside) -> IngestSettings:
        """Those of this job."""
        data = job.data
        return cls(
            sources=outside.fingerprints,
            image_column=data.image_column,
            label_column=data.label_column,
            rows_per_part=data.rows_per_part,
            test_fraction=data.test_fraction,
            validation_fraction=data.validation_fraction,
            split_seed=data.split_seed,
            limit=data.limit,
            imbalance=data.imbalance if data.imbalance > 1 else None,
        )
