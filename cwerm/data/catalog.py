"""From the job's ``data.source`` to a source."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from urllib.parse import urlsplit

from cwerm.data.files.listing import address, list_files
from cwerm.data.folders.image_folder import ImageFolder
from cwerm.data.huggingface.found import saved_shards
from cwerm.data.huggingface.hub import SCHEME, open_named
from cwerm.data.huggingface.source import SavedSet
from cwerm.data.manifests import Manifest
from cwerm.data.manifests.found import is_manifest
from cwerm.data.names import IMAGES, suffix
from cwerm.data.parquet import Parquet
from cwerm.data.parquet.found import parquet_files
from cwerm.data.public.arrays import ArraySource
from cwerm.data.public.cifar import Cifar10, Cifar100
from cwerm.data.public.fashion_mnist import FashionMnist
from cwerm.data.public.mnist import Mnist
from cwerm.data.sample import SampleSource
from cwerm.data.several import Several, distinct_names
from cwerm.data.source import Source
from cwerm.data.tars import Tars
from cwerm.data.tars.source import tar_files
from cwerm.errors import UserError, did_you_mean
from cwerm.job.surroundings import S3
from cwerm.store.storage import local_path

ARRAY_SOURCES: dict[str, type[ArraySource]] = {
    "fashion_mnist": FashionMnist,
    "mnist": Mnist,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
}
KNOWN_NAMES = ("sample", *ARRAY_SOURCES)
DEFAULT_ROOT = "~/.cache/cwerm"


def open_source(
    spec: str | Sequence[str],
    *,
    root: str | None = None,
    image_column: str = "image",
    label_column: str = "label",
    s3: S3 | None = None,
) -> Source:
    """Open a known data set by name, or the images at a path or URI.

    Args:
        spec: one of `KNOWN_NAMES`, a folder of class folders, a table of paths and labels, a Parquet
            file or tar shard or a folder of them, or a data set as Hugging Face's ``save_to_disk`` writes it;
            local or ``s3://``. Or ``hf:owner/name``, one of their hub. A known name comes before a folder
            of that name (``./mnist``).
        root: where public data sets lie or are downloaded to, by default ``~/.cache/cwerm``; or the
            folder that a table's paths are below, by default its own.
        image_column: the column of images, or of their paths.
        label_column: the column of labels.
        s3: how to reach ``s3://`` URIs; by default as the standard AWS variables say.

    Several addresses make one source of all of them.

    Raises:
        UserError: an unknown name, a missing path, no data, or data that can't be read.
    """
    if not isinstance(spec, str):
        one = functools.partial(open_source, root=root, image_column=image_column, s3=s3)
        if len(spec) > 1:
            distinct_names(spec)  # before any is opened
            return Several(spec, [one(each, label_column=label_column) for each in spec])
        (spec,) = spec
    if spec == "sample":
        return SampleSource()
    if spec in ARRAY_SOURCES:
        source = ARRAY_SOURCES[spec](str(local_path(root or DEFAULT_ROOT)))
        source.arrays("train")  # a missing data set should be known before any work is planned
        return source
    if spec.startswith(SCHEME):
        return open_named(spec, image_column, label_column)
    is_name = not urlsplit(spec).scheme and "/" not in spec and "." not in spec
    if is_name and not local_path(spec).exists():
        raise UserError(
            f"data.source: no data set or path '{spec}'{did_you_mean(spec, KNOWN_NAMES)} "
            f"(known: {', '.join(KNOWN_NAMES)}; or a folder, a Parquet file or an s3:// URI)"
        )
    try:
        return _open_files(spec, root, image_column, label_column, s3)
    except UserError as error:
        if not str(error).startswith("s3://"):
            raise
        raise UserError(f"data.source: {error}") from None


def _open_files(
    spec: str, root: str | None, image_column: str, label_column: str, s3: S3 | None
) -> Source:
    listing = list_files(spec, s3)
    if is_manifest(listing, address(spec), image_column):
        return Manifest(listing, image_column, label_column, root, s3)
    saved = saved_shards(listing, address(spec))
    if saved is not None:
        return SavedSet(listing, image_column, label_column, saved)
    shards = tar_files(listing)
    if shards and len(shards) >= sum(suffix(file.path) in IMAGES for file in listing.files):
        return Tars(listing, label_column, shards)
    files = parquet_files(listing, address(spec), image_column)
    if files:
        return Parquet(listing, image_column, label_column, files)
    return ImageFolder(listing)
