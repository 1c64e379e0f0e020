"""Workers that are gone: what Ray says of them, and when a piece of work is to blame."""

from __future__ import annotations

from collections.abc import Sequence

from cwerm.errors import UserError
from cwerm.runtime import capacity
from cwerm.runtime.worker_errors import lower

MOST_DEATHS = 3  # of the workers that do one piece of work, on nodes that live

Place = tuple[str, str]
"""A node: its id and its address."""


def is_loss(error: BaseException) -> bool:
    """Whether Ray says that a worker, or what it had made, is gone; not what our code raised."""
    from ray import exceptions

    lost = (
        exceptions.RayActorError,
        exceptions.ObjectLostError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
    )
    raised = isinstance(error, exceptions.RayTaskError) or getattr(
        error, "actor_init_failed", False
    )
    return isinstance(error, lost) and not raised


def too_many_deaths(what: str, address: str, key: str) -> UserError:
    """The error where one piece of work ends worker after worker."""
    return UserError(
        f"{what} has ended its worker {MOST_DEATHS} times, last on node {address}, most likely for want of "
        f"memory there; {lower(key)}, or see Ray's logs on that node"
    )


def check_deaths(what: str, places: Sequence[Place], key: str) -> None:
    """Refuse work that ended its worker at these places; those whose node has gone don't count.

    Raises:
        UserError: it has done so three times.
    """
    if len(places) < MOST_DEATHS:
        return
    living = {node.id for node in capacity.living_nodes()}
    if sum(node in living for node, _ in places) >= MOST_DEATHS:
        raise too_many_deaths(what, places[-1][1], key)
