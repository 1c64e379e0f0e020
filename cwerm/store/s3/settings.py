"""Where the settings of S3 come from, in words: the job, a variable, a profile, a proxy."""

from __future__ import annotations

import os
import ssl
from typing import Any
from urllib.parse import urlsplit

from cwerm.errors import UserError
from cwerm.job.surroundings import S3, is_endpoint

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def endpoint_name(client: Any) -> str:
    """The address that a client talks to, without what might be a password."""
    return _bare(client.meta.endpoint_url)


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def check_surroundings(settings: S3) -> None:
    """Refuse what can't be right before botocore says so in its own words.

    Raises:
        UserError: naming the variable.
    """
    name = next((name for name in ENDPOINT_VARIABLES if os.environ.get(name)), None)
    if settings.endpoint is None and name is not None:
        try:
            is_endpoint(os.environ[name])
        except ValueError as error:
            raise UserError(f"{name}: it {error}; correct this environment variable") from None


def check_certificates(client: Any, session: Any, settings: S3) -> None:
    """Refuse a file of certificates that is none, where one is needed.

    Raises:
        UserError: naming the variable or the profile, and the file.
    """
    bundle = session._session.get_config_variable("ca_bundle")
    if not bundle or not client.meta.endpoint_url.startswith("https:"):
        return
    try:
        ssl.create_default_context(cafile=bundle)
    except OSError as error:
        here = os.environ.get("AWS_CA_BUNDLE") == bundle
        where = "AWS_CA_BUNDLE" if here else f"ca_bundle in {profile_words(settings)}"
        reason = error.strerror if isinstance(error, FileNotFoundError) else "no certificates in it"
        raise UserError(
            f"{where}: '{bundle}' can't be used ({reason}); name the file with the certificate of "
            "your server's authority, or leave it out"
        ) from None


def unusable(settings: S3, error: Exception) -> UserError:
    """What botocore refuses as it makes a client."""
    from botocore import exceptions

    if isinstance(error, exceptions.ProfileNotFound):
        return UserError(
            f"{profile_key(settings)}: there is no profile '{profile(settings)}' in ~/.aws/config or "
            "~/.aws/credentials; correct it, or leave it out"
        )
    if isinstance(error, exceptions.ConfigParseError):
        return UserError(f"{' '.join(str(error).split())}; correct this file")
    if isinstance(error, exceptions.CredentialRetrievalError | exceptions.PartialCredentialsError):
        return UserError(f"s3: {credentials_problem(error, settings)}")
    if isinstance(error, ValueError) and not isinstance(error, exceptions.BotoCoreError):
        return UserError(
            f"s3: the endpoint in {profile_words(settings)} is no http:// or https:// URL; correct it"
        )
    return UserError(
        f"s3: botocore refuses the settings ({' '.join(str(error).split())}); see the job's section "
        f"s3, the AWS variables, and {profile_words(settings)}"
    )


def profile(settings: S3) -> str:
    """The profile in use."""
    named = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    return settings.profile or named or "default"


def profile_key(settings: S3) -> str:
    """What names the profile."""
    if settings.profile:
        return "s3.profile"
    return "AWS_PROFILE" if os.environ.get("AWS_PROFILE") else "AWS_DEFAULT_PROFILE"


def profile_words(settings: S3) -> str:
    """The profile in use, and what names it."""
    name = profile(settings)
    return f"profile '{name}'" + (f" of {profile_key(settings)}" if name != "default" else "")


def endpoint_words(settings: S3) -> str:
    """What names the endpoint; nothing for AWS's own."""
    if settings.endpoint:
        return "s3.endpoint"
    name = next((name for name in ENDPOINT_VARIABLES if os.environ.get(name)), None)
    return name or ""


def credentials_words(settings: S3) -> str:
    """Where the credentials in use come from."""
    if settings.profile is None and os.environ.get("AWS_ACCESS_KEY_ID"):
        return "the credentials in AWS_ACCESS_KEY_ID"
    return f"the credentials of {profile_words(settings)}"


def region_words(settings: S3) -> str:
    """What names the region."""
    if settings.region:
        return f"s3.region is '{settings.region}'"
    if os.environ.get("AWS_DEFAULT_REGION"):
        return f"AWS_DEFAULT_REGION is '{os.environ['AWS_DEFAULT_REGION']}'"
    return f"no region is given, or one by {profile_words(settings)}"


def described(client: Any, settings: S3) -> str:
    """The server that a client talks to, and which settings lead there."""
    origin = endpoint_words(settings)
    parts = [
        f"S3 at {endpoint_name(client)}" + (f" of {origin}" if origin else ""),
        f"region {client.meta.region_name}",
        credentials_words(settings),
        proxy_words(client.meta.endpoint_url),
    ]
    return ", ".join(part for part in parts if part)


def proxy_words(url: str) -> str:
    """The proxy through which an address is asked, and how to leave it out; nothing without one."""
    from botocore.utils import get_environ_proxies

    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    proxy = get_environ_proxies(url).get(scheme)
    if not proxy:
        return ""
    proxy = _bare(proxy if "://" in proxy else f"http://{proxy}")
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    name = next((name for name in names if os.environ.get(name)), "the system's settings")
    return f"asked through the proxy {proxy} of {name}; no_proxy={host} would go round it"


def credentials_problem(error: Exception, settings: S3) -> str:
    """What is wrong with the credentials, and the remedy."""
    name, words = type(error).__name__, profile_words(settings)
    if name == "NoCredentialsError":
        return "no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or s3.profile"
    if name == "PartialCredentialsError":
        missing = getattr(error, "kwargs", {}).get("cred_var", "one of them")
        return f"half of the S3 credentials, {missing} is missing; set it, or neither"
    if "SSO" in name or "Login" in name or "Token" in name:
        command = "aws login" if "Login" in name else "aws sso login"
        return (
            f"{words} has no valid login ({name}); run `{command} --profile {profile(settings)}` "
            "and again"
        )
    if name == "CredentialRetrievalError":
        provider = getattr(error, "kwargs", {}).get("provider", "its provider")
        if provider == "custom-process":
            return (
                f"the credential_process of {words} failed; run that command by hand and correct it"
            )
        if "sso" in provider.lower():
            return f"{words} has no valid login; run `aws sso login --profile {profile(settings)}`"
        return f"{words} gives no credentials ({provider} failed); correct it in ~/.aws/config"
    return f"{words} gives no credentials ({name}); correct it in ~/.aws/config"
