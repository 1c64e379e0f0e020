"""What extract sees of a job."""

from __future__ import annotations

from cwerm.job.tree import Job
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Settings

# by table of the features, the images that they are of
SOURCES = {
    "features": "images",
    "validation_features": "validation_images",
    "test_features": "test_images",
    "trusted_features": "trusted_images",
}
# by stage, the tables that it makes
TABLES = {
    "extract": ("features", "trusted_features"),
    "embed_val": ("validation_features",),
    "embed_test": ("test_features",),
}


class ExtractSettings(Settings):
    """The backbone, and how its features are stored."""

    backbone: str
    weights: str
    """What tells the backbone's weights from others."""
    image_size: int | None
    dtype: str
    precision: str

    @classmethod
    def of(cls, job: Job, outside: Outside) -> ExtractSettings:
        """Those of this job."""
        features = job.features
        return cls(
            backbone=features.backbone,
            weights=outside.backbone_weights,
            image_size=features.image_size,
            dtype=features.dtype,
            precision=features.precision,
        )
