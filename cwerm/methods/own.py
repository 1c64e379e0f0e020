"""Methods of a user's own, which a job names by their path: ``my_module:MyMethod``.

The module is imported when the job runs, not when its file is read: a job file that was found somewhere
else runs no code.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from cwerm.algorithms.imported import imported
from cwerm.errors import UserError, blame
from cwerm.methods.reweighting import Learned, Reweighting
from cwerm.methods.samples import Batch, Reference, Run, Samples
from cwerm.methods.spreading import Spreading
from cwerm.values import Section
from cwerm.values.explain import explain

Dotted = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class OwnReweighting(Reweighting):
    """The keys of a reweighting method that is named by its path."""

    model_config = ConfigDict(extra="allow")

    method: Dotted
    """``module:Class`` of a `Reweighting`."""

    def made(self) -> Reweighting:
        """An object of the class."""
        return _made(self, Reweighting, "reweight")

    def learn(self, reference: Samples, clean: Samples | None, run: Run) -> Learned:
        """Of `made` alone."""
        raise NotImplementedError(self.method)


class OwnSpreading(Spreading):
    """The keys of a way of spreading that is named by its path."""

    model_config = ConfigDict(extra="allow")

    method: Dotted
    """``module:Class`` of a `Spreading`."""

    def made(self) -> Spreading:
        """An object of the class."""
        return _made(self, Spreading, "broadcast")

    def spread(self, batch: Batch, reference: Reference, learned: Learned | None) -> Any:
        """Of `made` alone."""
        raise NotImplementedError(self.method)


def _made(section: Section, base: Any, key: str) -> Any:
    """An object of the user's class, with the section's keys.

    Raises:
        UserError: no such class, or keys that do not fit it.
    """
    path = section.model_dump()["method"]
    with blame(f"{key}.method"):
        kind = imported(path)
    fits = isinstance(kind, type) and issubclass(kind, base)
    if not fits:
        raise UserError(
            f"{key}.method: '{path}' is no {base.__name__}; derive it from "
            f"{base.__module__}.{base.__name__}"
        )
    try:
        return kind.model_validate(section.model_dump(exclude_unset=True))
    except ValidationError as error:
        raise UserError(f"{key}.{explain(error.errors()[0], kind.model_json_schema())}") from None
