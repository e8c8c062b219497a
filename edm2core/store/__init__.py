"""The keyed store: results, scratch, leases and runs, in a local folder or in an S3 bucket. This module opens stores by their addresses."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from edm2core.addresses import is_url, is_web_url
from edm2core.errors import InputError
from edm2core.paths import local_path
from edm2core.store.base import Store as Store
from edm2core.store.base import check_path

DEFAULT_STORE, STORE_VARIABLE = "./edm2-store", "EDM2_STORE"  # the store if none is named, and the variable that names another
PARTS = {"runs", "results", "sources", "scratch"}  # a store has at least one of these folders
MOST_LOOKED_INTO = 20  # the most folders to look into for a store to suggest
ENDPOINTS = ("EDM2_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # variables with the S3 service's address; the first set counts


def default_store(store: str | Path | None = None) -> str:
    """The address of a store: the one that is given, else that of the environment, else the working directory's."""
    return str(store or os.environ.get(STORE_VARIABLE) or DEFAULT_STORE)


def open_store(uri: str) -> Store:
    """The store at a path, a `file://` URI, or `s3://bucket/prefix` (also written `minio://bucket/prefix`).

    Raises InputError if it cannot be a store's address, StoreError if the store cannot be used.
    """
    check_address(uri)
    if not is_url(uri):
        from edm2core.store.local import LocalStore

        return LocalStore(local_path(uri))
    from edm2core.store.s3 import S3Store  # the client is slow to import

    return S3Store(uri)


def find_store(uri: str) -> Store:
    """Like `open_store`, for an existing store; raises InputError if there is none."""
    store = open_store(uri)
    folders = set(store.folders(""))
    if not folders & PARTS:
        nothing = "There is no store here: nothing was ever run into it."
        what = "This is not a store: it has neither runs nor results." if folders else nothing
        within = next((name for name in sorted(folders)[:MOST_LOOKED_INTO] if PARTS & set(store.folders(f"{name}/"))), None)
        hint = f"Did you mean {store.uri.rstrip('/')}/{within}? " if within else ""
        raise InputError(what, where=store.uri, do_next=f"{hint}Give the address that `edm2 run --store` was given.")
    return store


def split_address(address: str, area: str, store: str = "") -> tuple[str, str]:
    """The store and the name in STORE/`area`/NAME, such as STORE/runs/ID or STORE/results/STAGE/KEY; a bare name is one in `store`."""
    uri, separator, name = address.rstrip("/").rpartition(f"/{area}/")
    return (uri if separator else store), name


def check_address(uri: str) -> None:
    """Raise InputError if an address cannot be a store's. No request is sent."""
    if not uri.strip():
        raise InputError("The store's address is empty.", do_next="Give a folder, or minio://bucket/prefix.")
    if not is_url(uri):
        local_path(uri)
    elif uri.startswith(("s3://", "minio://")):
        bucket_of(uri)
    else:
        scheme = uri.partition("://")[0]
        raise InputError(f"The store cannot be at '{scheme}://'.", where=uri, do_next="Give a folder, s3://… or minio://….")


def bucket_of(uri: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix` or `minio://bucket/prefix`; raises InputError for anything else."""
    parts = urlsplit(uri)
    prefix = parts.path.strip("/")
    named = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc)
    if parts.scheme not in ("s3", "minio") or not named or parts.query or parts.fragment:
        hint = "; credentials come separately, from the environment or a Secret" if "@" in parts.netloc else ""
        where = f"{parts.scheme or 's3'}://…"
        raise InputError("This is not the address of a bucket.", where=where, do_next=f"Write minio://bucket/prefix{hint}.")
    return parts.netloc, check_path(prefix) if prefix else ""


def check_endpoint(variable: str, endpoint: str) -> None:
    """Raise InputError, naming the variable, if its value cannot be the address of an object store's service."""
    if not is_web_url(endpoint) or "@" in endpoint or re.search("[/?#]", endpoint.partition("://")[2].rstrip("/")):
        do_next = "Write http://host:port or https://host:port; credentials come separately."
        raise InputError("This is not the address of an object store.", where=f"{variable}={endpoint}", do_next=do_next)
