"""boto3 clients: settings of the job, credentials of the surroundings, patience with outages."""

from __future__ import annotations

import functools
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from cwerm.errors import UserError
from cwerm.sections import S3

PATIENCE_SECONDS = 75.0  # from a request's first failure to the last try
LONGEST_WAIT = 4.0
CONNECT_SECONDS = 5
READ_SECONDS = 30
CONNECTIONS = 32
REMEDY = "check that the server runs and can be reached, then run again"
REASONS = {
    "EndpointConnectionError": "can't connect",
    "ConnectTimeoutError": "connecting takes too long",
    "ReadTimeoutError": "it took the request and was silent",
    "ConnectionClosedError": "it closed the connection",
    "ProxyConnectionError": "the proxy can't be reached",
    "SSLError": "TLS failed",
}


def s3_client(settings: S3, *, hasty: bool = False) -> Any:
    """The client for these settings and the AWS variables as they are now; made once a process.

    Args:
        settings: what the job says.
        hasty: give up within seconds, for a first look at an endpoint.

    Raises:
        UserError: the profile is not there, or a variable holds an endpoint that is none.
    """
    surroundings = frozenset(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return _client(settings, hasty, hash(surroundings))


@functools.lru_cache(maxsize=8)
def _client(settings: S3, hasty: bool, _surroundings: int) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ProfileNotFound

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=10 if hasty else READ_SECONDS,
        retries={"total_max_attempts": 2 if hasty else 4, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
        s3={"addressing_style": settings.addressing_style},
    )
    try:
        # a session of its own: the shared one keeps the credentials that it saw first
        session = boto3.session.Session(profile_name=settings.profile)
        client: Any = session.client(
            "s3", endpoint_url=settings.endpoint, region_name=settings.region, config=config
        )
    except ProfileNotFound as error:
        raise UserError(f"s3.profile: {error}; see ~/.aws/config, or leave it out") from None
    except ValueError:
        raise UserError(
            "storage: the endpoint in AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL is no http:// or "
            "https:// URL; mend it"
        ) from None
    if not hasty:
        client.meta.events.register("needs-retry.s3", _wait_for_server)
    return client


def _wait_for_server(
    attempts: int,
    operation: Any,
    request_dict: dict[str, Any],
    response: Any,
    caught_exception: Any,
    **_: Any,
) -> float | None:
    """Seconds to wait before the next try, asked by botocore after its own retries gave up.

    Those end after a number of tries, of all threads together, which an outage uses up in seconds.
    """
    if not _is_outage(operation.name, response, caught_exception):
        return None
    first_failure = request_dict["context"].setdefault("cwerm_first_failure", time.monotonic())
    wait = random.uniform(0.5, 1.0) * min(LONGEST_WAIT, 0.25 * 2**attempts)
    return wait if time.monotonic() + wait < first_failure + PATIENCE_SECONDS else None


def _is_outage(operation: str, response: Any, error: Any) -> bool:
    from botocore import exceptions

    if error is not None:
        return isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError)
    http, parsed = response
    if operation in ("GetObject", "HeadObject") and "content-length" not in http.headers:
        return True  # broken off among the headers, which would pass for an empty object
    busy = parsed.get("Error", {}).get("Code") == "ConditionalRequestConflict"
    return busy or http.status_code == 429 or (http.status_code >= 500 and http.status_code != 501)


@contextmanager
def explained(uri: str, settings: S3) -> Iterator[None]:
    """Turn what botocore raises about ``uri`` into one line.

    The line is made of our own words and the error's code: what servers and libraries say may quote
    requests, and those hold credentials.

    Raises:
        UserError: naming the address and the remedy, and the endpoint where that does not answer.
    """
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        code = error.response["Error"].get("Code", "unknown error")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= 500:
            raise _no_answer(uri, settings, code) from None
        raise UserError(
            f"{uri}: S3 answers {code}; check bucket, region, credentials and permissions"
        ) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise UserError(
            f"{uri}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or s3.profile"
        ) from None
    except exceptions.BotoCoreError as error:
        name = type(error).__name__
        if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError):
            raise _no_answer(uri, settings, REASONS.get(name, name)) from None
        raise UserError(f"{uri}: {name} of S3; check the bucket's name and the settings") from None


def _no_answer(uri: str, settings: S3, reason: str) -> UserError:
    parts = urlsplit(s3_client(settings).meta.endpoint_url)
    endpoint = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return UserError(f"{uri}: no answer from {endpoint} ({reason}); {REMEDY}")
