"""What may pass and what stays, of all that goes wrong between us and a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BUSY = (  # what servers say that want to be asked again later
    *("SlowDown", "ServiceUnavailable", "InternalError", "Throttling", "ThrottlingException"),
    *("RequestLimitExceeded", "TooManyRequestsException", "BandwidthLimitExceeded"),
    *("RequestTimeout", "RequestTimeoutException", "OperationAborted"),
    "ConditionalRequestConflict",
)
REASONS = {
    "EndpointConnectionError": "can't connect",
    "ConnectTimeoutError": "connecting takes too long",
    "ReadTimeoutError": "it took the request and was silent",
    "ConnectionClosedError": "it closed the connection",
    "ProxyConnectionError": "the proxy can't be reached",
    "SSLError": "TLS failed",
}


def outage(operation: str, response: Any, error: Any, answered: bool) -> str | None:
    """Why a try failed, where that may pass; None for what stays as it is.

    Args:
        operation: the name of the request.
        response: the HTTP response and what was understood of it, None without one.
        error: what was raised instead.
        answered: whether the server has answered before; a host name that is known to nobody, or
            a server without TLS, is then no mistake in an address.
    """
    if error is not None:
        return _passing(error, answered)
    http, code, status = response[0], code_of(response), response[0].status_code
    if operation in ("GetObject", "HeadObject") and "content-length" not in http.headers:
        return "its answer broke off"  # among the headers, which would pass for an empty object
    if code in BUSY or status == 429:
        return f"it is busy, {code or status}"
    return f"{code or status}" if status >= 500 and status not in (501, 505, 507) else None


def _passing(error: Any, answered: bool) -> str | None:
    import http.client
    import socket
    import ssl

    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    found = list(causes(error))
    kinds = (exceptions.ConnectionError, exceptions.HTTPClientError)
    if not isinstance(error, kinds) or any(
        isinstance(c, ssl.SSLCertVerificationError) for c in found
    ):
        return None
    if isinstance(error, exceptions.SSLError):
        unread = any(isinstance(c, FileNotFoundError | PermissionError) for c in found)
        reasons = {getattr(c, "reason", None) for c in found if isinstance(c, ssl.SSLError)}
        other = reasons & {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}
        return None if unread or (other and not answered) else "TLS failed"
    if any(isinstance(c, socket.gaierror) for c in found):
        return "its name is not found" if answered else None
    if any("407" in str(c) for c in found) and isinstance(error, exceptions.ProxyConnectionError):
        return None
    if type(error) is exceptions.HTTPClientError and not any(
        isinstance(c, OSError | HTTPError | http.client.HTTPException) for c in found
    ):
        return None
    return REASONS.get(type(error).__name__, type(error).__name__)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was made from, however that is kept."""
    seen: set[int] = set()
    pending: list[Any] = [error]
    while pending:
        current = pending.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [*current.args, current.__cause__, current.__context__]
        pending += [getattr(current, "reason", None), getattr(current, "kwargs", {}).get("error")]


def code_of(response: Any) -> str:
    """The code of an answer in S3's language, "" for another one."""
    return str(response[1].get("Error", {}).get("Code", ""))
