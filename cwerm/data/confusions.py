"""Which classes people take for which others, and how often: a small YAML or JSON file."""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.store.storage import fetch

OF_FASHION = ("sample", "fashion_mnist")  # sources whose classes have a table of ours
TABLE = TypeAdapter(dict[str, dict[str, float]])


def read_confusions(
    source: str, address: str | None, s3: S3 | None = None
) -> dict[str, dict[str, float]]:
    """The table at an address, or that of the source's classes where none is given.

    Raises:
        UserError: there is none, or the file holds something else.
    """
    if address is None and source not in OF_FASHION:
        raise UserError(
            "data.confusions: noise confusion needs a table of the classes; give a YAML file such as "
            "{cat: {dog: 0.2}}"
        )
    with tempfile.TemporaryDirectory() as folder:
        if address is None:
            data = resources.files("cwerm.data").joinpath("sample/confusions.json").read_bytes()
            return TABLE.validate_json(data)
        try:
            tree = yaml.safe_load(fetch(address, Path(folder), s3).read_bytes())
            return TABLE.validate_python(tree, strict=True)
        except OSError as error:
            reason = f"can't be read ({error.strerror})"
        except (yaml.YAMLError, ValidationError, UnicodeDecodeError, RecursionError):
            reason = "is no table of classes with those that they are taken for, {cat: {dog: 0.2}}"
    raise UserError(f"data.confusions: '{address}' {reason}; check the file")
