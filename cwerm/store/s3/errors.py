"""What goes wrong with S3, in one line of our own words.

What servers and libraries say may quote requests, and those hold credentials.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.store.s3 import settings as s3_settings
from cwerm.store.s3.client import hurry, s3_client
from cwerm.store.s3.outage import REASONS, causes

REMEDY = "check that the server runs and can be reached, then run again"
NEEDS = {  # what a policy must allow for a request
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
}
CHECKSUMS = (
    "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
    "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required on every node, or use another server"
)
CONDITIONS = (
    "commits need conditional writes (If-None-Match): use a server that has them, such as AWS S3, "
    "MinIO, Ceph or SeaweedFS in a recent version, or a file system that all hosts share"
)
OLD = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken")
ELSEWHERE = (
    *("PermanentRedirect", "TemporaryRedirect", "301", "307", "308"),
    *("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "InvalidRegion"),
)


@contextmanager
def explained(uri: str, settings: S3) -> Iterator[None]:
    """Turn what botocore raises about ``uri`` into one line.

    Raises:
        UserError: naming the address, the setting that is wrong where one is, and the remedy.
    """
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        raise UserError(f"{uri}: {_refusal(error, settings, uri)}") from None
    except exceptions.BotoCoreError as error:
        raise UserError(f"{uri}: {_failure(error, settings)}") from None
    except ResponseParserError:
        raise UserError(
            f"{uri}: something that is no S3 server answers at {_endpoint(settings)}; "
            "check the address"
        ) from None
    except (KeyboardInterrupt, SystemExit):
        hurry()
        raise


def _endpoint(settings: S3) -> str:
    """The server's address, and which setting it comes from."""
    name = s3_settings.endpoint_name(s3_client(settings))
    origin = s3_settings.endpoint_words(settings)
    return f"{name} (from {origin})" if origin else name


def _no_answer(settings: S3, reason: str, remedy: str = REMEDY) -> str:
    url = s3_client(settings).meta.endpoint_url
    origin = s3_settings.endpoint_words(settings)
    reason = f"{reason}, address from {origin}" if origin else reason
    proxy = s3_settings.proxy_words(url)
    if proxy:
        remedy = f"{proxy}; {remedy}"
    return f"no answer from {s3_settings.endpoint_name(s3_client(settings))} ({reason}); {remedy}"


def _failure(error: Any, settings: S3) -> str:
    """Without an answer, or before a request."""
    from botocore import exceptions

    name = type(error).__name__
    asked = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url") or ""))
    own = urlsplit(s3_client(settings).meta.endpoint_url)
    if asked.hostname and not _is_s3(asked.hostname, own.hostname or ""):
        who = s3_settings.profile_words(settings)
        return (
            f"{who} asks {asked.hostname} for credentials, which does not answer "
            f"({REASONS.get(name, name)}); log in again, or correct the profile"
        )
    if isinstance(error, exceptions.ParamValidationError):
        return "this is no name of a bucket or an object; correct it"
    if isinstance(error, exceptions.SSLError):
        return _no_tls(error, settings)
    if isinstance(error, exceptions.ProxyConnectionError):
        return _no_answer(settings, REASONS[name])
    found = [type(cause).__name__ for cause in causes(error)]
    if isinstance(error, exceptions.EndpointConnectionError) and "gaierror" in found:
        remedy = "check the address for a slip, and the network"
        if asked.hostname != own.hostname and not own.netloc.endswith("amazonaws.com"):
            remedy = f"buckets are no host names there: set s3.addressing_style=path, or {remedy}"
        return _no_answer(settings, f"there is no host '{asked.hostname}'", remedy)
    if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError):
        return _no_answer(settings, REASONS.get(name, name))
    if isinstance(error, exceptions.FlexibleChecksumError):
        return "what arrives has another checksum than what was stored; write the object again"
    if isinstance(error, exceptions.IncompleteReadError):
        return _no_answer(settings, "its answer breaks off")
    if any(word in name for word in ("Credential", "Token", "SSO", "Login", "Config", "MFA")):
        return s3_settings.credentials_problem(error, settings)
    return f"{name} of S3; check the bucket's name and the settings"


def _is_s3(host: str, known: str) -> bool:
    """Whether a host is the server, one of its buckets, or AWS's in another region."""
    return host == known or host.endswith(f".{known}") or (".s3" in host and "amazonaws" in host)


def _no_tls(error: Any, settings: S3) -> str:
    found = list(causes(error))
    for cause in found:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _no_answer(
                settings,
                f"its certificate is not trusted, {cause.verify_message}",
                "name the file with its authority's certificate in AWS_CA_BUNDLE, on every node",
            )
    reasons = {getattr(cause, "reason", None) for cause in found}
    if reasons & {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}:
        return _no_answer(settings, "it speaks no TLS", "write http:// instead of https://")
    return _no_answer(settings, "TLS failed")


def _refusal(error: Any, settings: S3, uri: str) -> str:
    """What the server answers instead."""
    answer, operation = error.response, error.operation_name
    meta = answer.get("ResponseMetadata", {})
    status, headers = meta.get("HTTPStatusCode", 0), meta.get("HTTPHeaders", {})
    code = str(answer["Error"].get("Code") or status)
    who = s3_settings.credentials_words(settings)
    bucket = urlsplit(uri).netloc
    if operation.startswith(("AssumeRole", "GetRoleCredentials", "CreateToken")):
        words = s3_settings.profile_words(settings)
        return f"{words} gives no credentials, {operation} is refused ({code}); correct the role"
    if code.startswith("KMS.") or "kms:" in str(answer["Error"].get("Message")).lower():
        return (
            f"the key that encrypts it is refused to {who} ({code}); ask its owner for kms:Decrypt "
            "and kms:GenerateDataKey"
        )
    if code in OLD:
        return f"{who} have run out ({code}); renew them, on every node, and run again"
    if code in ("AccessDenied", "AllAccessDisabled", "Forbidden", "403"):
        return _denied(code, operation, settings, who)
    if code == "InvalidAccessKeyId":
        return (
            f"S3 does not know {who} ({code}); correct them, or the endpoint {_endpoint(settings)}"
        )
    if code == "SignatureDoesNotMatch":
        return f"the secret key does not fit {who} ({code}); correct it"
    if code == "RequestTimeTooSkewed":
        return f"this machine's clock is off{_skew(headers)} ({code}); set it, such as by NTP"
    if code == "NoSuchBucket":
        return (
            f"there is no bucket '{bucket}' at {_endpoint(settings)}; create it or correct the name"
        )
    if code == "InvalidBucketName":
        return f"'{bucket}' is no bucket's name; correct it"
    if code in ELSEWHERE:
        region = headers.get("x-amz-bucket-region") or answer["Error"].get("Region")
        told = f"it is in {region}; set s3.region={region}" if region else "set s3.region"
        return f"the bucket is in another region ({code}), {s3_settings.region_words(settings)}; {told}"
    if code == "InvalidObjectState":
        return (
            f"the object is archived ({code}); restore it to read it, or leave it out of the data"
        )
    if code in ("PreconditionFailed", "412", "InvalidRange", "416"):
        return "the object changed while it was read; run again when nobody writes it"
    if code in ("NotImplemented", "501"):
        needs = "PutObject needs, checksum headers or conditional writes"
        if operation != "PutObject":
            needs = f"{operation} needs, such as checksum headers"
        return f"the server lacks what {needs} ({code}); {CHECKSUMS}"
    if status == 407:
        return _no_answer(settings, "407, the proxy wants a password", "give it in the proxy's URL")
    if status == 507 or "StorageFull" in code or "Quota" in code:
        return f"the server has no space left ({code}); free some, and run again to go on from here"
    if status >= 500:
        return _no_answer(settings, code)
    proxy = s3_settings.proxy_words(s3_client(settings).meta.endpoint_url)
    rest = "check bucket, region, credentials and permissions"
    return f"S3 answers {code}; {f'{proxy}; ' if proxy else ''}{rest}"


def _denied(code: str, operation: str, settings: S3, who: str) -> str:
    need = NEEDS.get(operation, f"s3:{operation}")
    remedy = "allow it in the policy of the bucket or of the user, or use other credentials"
    reads = need in ("s3:GetObject", "s3:ListBucket")
    if reads and not settings.requester_pays:
        remedy += "; of a bucket whose readers pay, set s3.requester_pays=true"
    proxy = s3_settings.proxy_words(s3_client(settings).meta.endpoint_url)
    if proxy and code == "403":
        remedy = f"{proxy}; {remedy}"
    return f"{need} is refused to {who} ({code}); {remedy}"


def _skew(headers: dict[str, str]) -> str:
    seconds = skew_seconds(headers)
    return "" if seconds is None else f" by {seconds / 60:+.0f} minutes"


def skew_seconds(headers: dict[str, str]) -> float | None:
    """Seconds by which this machine's clock is ahead of the server's, None where it tells no time."""
    try:
        return time.time() - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
