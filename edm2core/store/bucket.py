"""Addresses of buckets and of the services that hold them. They are checked without a request."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from edm2core.errors import InputError
from edm2core.store.base import check_path

ENDPOINTS = (
    "EDM2_S3_ENDPOINT",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
)  # variables that hold the service's address; the first that is set counts


def bucket_of(uri: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix` or `minio://bucket/prefix`; raises InputError for anything else."""
    parts = urlsplit(uri)
    prefix = parts.path.strip("/")
    named = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc)
    if parts.scheme not in ("s3", "minio") or not named or parts.query or parts.fragment:
        hint = "; credentials come separately, from the environment or a Secret" if "@" in parts.netloc else ""
        raise InputError(
            "This is not the address of a bucket.", where=f"{parts.scheme or 's3'}://…", do_next=f"Write minio://bucket/prefix{hint}."
        )
    return parts.netloc, check_path(prefix) if prefix else ""


def check_endpoint(variable: str, endpoint: str) -> None:
    """Raise InputError, naming the variable, if its value cannot be the address of an object store's service."""
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.path.strip("/") or "@" in parts.netloc or parts.query or parts.fragment or not endpoint.isprintable():
        raise InputError(
            "This is not the address of an object store.",
            where=f"{variable}={endpoint}",
            do_next="Write http://host:port or https://host:port; credentials come separately.",
        )
