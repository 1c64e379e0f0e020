"""The address of a Ray cluster: which one is meant, and whether a cluster answers there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cwerm.errors import UserError
from cwerm.runtime.asked import Run
from cwerm.runtime.session import private_session

CONNECT_SECONDS = 5.0
TOKEN_REMEDY = (
    "wants its token: set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
)


@dataclass(frozen=True)
class Address:
    """Where a cluster is, or should be, and which setting says so."""

    setting: str
    value: str

    @property
    def remedy(self) -> str:
        """How to do without a cluster."""
        if self.setting == "RAY_ADDRESS":
            return "unset RAY_ADDRESS to use this machine"
        return "leave the address out to use this machine"

    def missing(self, error: Exception) -> UserError:
        """Nobody answers there, or something else."""
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return UserError(
            f"{self.setting}: no Ray cluster at '{self.value}' ({reason}); start one, or {self.remedy}"
        )

    def wants_token(self) -> UserError:
        """It does not take this process's token, or there is none."""
        return UserError(f"{self.setting}: the cluster at '{self.value}' {TOKEN_REMEDY}")


def cluster_address(run: Run) -> Address | None:
    """The cluster to join, None where a run starts a session on this machine."""
    given, surroundings = run.resources.address, os.environ.get("RAY_ADDRESS")
    if given and not (given == "auto" and surroundings):  # as Ray has it
        address = Address("resources.address", given)
    elif surroundings:
        address = Address("RAY_ADDRESS", surroundings)
    else:
        return None
    return None if address.value == "local" else address


def answering(address: Address) -> str:
    """HOST:PORT of a cluster that answers there.

    Raises:
        UserError: the address is no address, does not answer within seconds, or wants another token.
    """
    refusals = []
    for value in _running_here() if address.value == "auto" else [address.value]:
        candidate = Address(address.setting, value)
        host, port = _host_and_port(candidate)
        try:
            _ask(candidate, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except UserError as refusal:
            refusals.append(refusal)
        else:
            return value
    raise refusals[0] if refusals else address.missing(OSError("none was started on this machine"))


def _running_here() -> list[str]:
    """Where clusters were started on this machine, the last first; they may have ended since.

    Those on the loopback interface are sessions of other runs, and no clusters.
    """
    from ray._private import services

    recorded = services.find_bootstrap_address(None)
    found = [a for a in services.find_gcs_addresses() if not a.startswith(private_session.LOOPBACK)]
    return list(dict.fromkeys([*([recorded] if recorded else []), *sorted(found)]))


def _host_and_port(address: Address) -> tuple[str, int]:
    try:
        parts = urlsplit(address.value if "://" in address.value else f"//{address.value}")
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    name, value = address.setting, address.value
    if scheme in ("http", "https"):
        raise UserError(
            f"{name}: '{value}' is the address of a dashboard: `cwerm submit JOB.yaml --address {value}` "
            f"runs a job there; to join the cluster give HOST:PORT of its head, or {address.remedy}"
        )
    if scheme == "ray":
        raise UserError(
            f"{name}: '{value}' is an address of Ray Client, which this can't use; on a host of the cluster "
            "give HOST:PORT of its head, such as 10.0.0.1:6379; from elsewhere use `cwerm submit`"
        )
    if scheme or not host or not port or parts.path or parts.query or parts.username:
        raise UserError(
            f"{name}: '{value}' is no HOST:PORT, such as 10.0.0.1:6379; correct it, or {address.remedy}"
        )
    return host, port


def _ask(address: Address, target: str) -> None:
    """Ask the head whether it lives.

    Raises:
        UserError: it does not answer within seconds, or not to this process's token.
    """
    import grpc  # type: ignore[import-untyped]  # comes with Ray
    import ray
    from ray._private.authentication.http_token_authentication import (
        get_auth_headers_if_auth_enabled,
    )
    from ray.exceptions import AuthenticationError

    # a session that is there is used, whatever the address; its token is for nobody else
    stranger = ray.is_initialized()
    try:
        token = [] if stranger else [*get_auth_headers_if_auth_enabled({}).items()]
    except AuthenticationError:
        raise address.wants_token() from None
    with _channel(target) as channel:
        ask: Any = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(b"", timeout=CONNECT_SECONDS, metadata=token)
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.UNAUTHENTICATED and not stranger:
                raise address.wants_token() from None
            if code == grpc.StatusCode.UNIMPLEMENTED:
                raise address.missing(OSError("something else listens there")) from None
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                silence = f"no answer within {CONNECT_SECONDS:.0f} s"
                raise address.missing(TimeoutError(silence)) from None
            if code == grpc.StatusCode.UNAVAILABLE:
                raise address.missing(OSError(_reason(error.details()))) from None
            # of anything else ray.init has more to say


def _channel(target: str) -> Any:
    """As Ray's own: with the certificates that its variables name, and by no proxy."""
    import grpc

    options = [("grpc.enable_http_proxy", 0)]
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(target, options)
    from ray._common import tls_utils

    chain, key, authority = tls_utils.load_certs_from_env()
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(authority, key, chain), options)


def _reason(details: str | None) -> str:
    """What gRPC says of a connection, without its own layers."""
    if "HTTP/2" in (details or ""):
        return "something else listens there"
    return (details or "").rpartition(": ")[2].strip(" ]") or "it does not answer"
