"""The keyed store: results, scratch, leases and runs, in a local folder or in an S3 bucket."""

from __future__ import annotations

from pathlib import Path

from edm2core.addresses import is_url
from edm2core.errors import InputError
from edm2core.paths import local_path
from edm2core.store.base import Store
from edm2core.store.bucket import bucket_of

PARTS = {"runs", "results", "sources", "scratch"}  # folders of a store, of which it has at least one
MOST_LOOKED_INTO = 20  # folders, where a store may be in one of them

__all__ = ["Store", "check_address", "find_store", "open_store"]


def check_address(uri: str) -> None:
    """Raise InputError for an address that can be no store's, wherever it is opened; nobody is asked."""
    if not uri.strip():
        raise InputError("The store's address is empty.", do_next="Give a folder, or minio://bucket/prefix.")
    if not is_url(uri):
        local_path(uri)
    elif uri.startswith(("s3://", "minio://")):
        bucket_of(uri)
    else:
        scheme = uri.partition("://")[0]
        raise InputError(f"The store cannot be at '{scheme}://'.", where=uri, do_next="Give a folder, s3://… or minio://….")


def open_store(uri: str) -> Store:
    """The store at a path, a `file://` URI, or `s3://bucket/prefix` (also written `minio://bucket/prefix`).

    Raises InputError for an address that cannot be one, StoreError for one that cannot be used.
    """
    check_address(uri)
    if not is_url(uri):
        return _local(local_path(uri))
    from edm2core.store.s3 import S3Store

    return S3Store.open(uri)


def find_store(uri: str) -> Store:
    """The store at an address like `open_store`, for who only wants to read; raises InputError where there is none yet."""
    store = open_store(uri)
    found = set(store.folders(""))
    if not found & PARTS:
        what = "This is not a store: it has neither runs nor results." if found else "There is no store here: nothing was ever run into it."
        within = next((name for name in sorted(found)[:MOST_LOOKED_INTO] if PARTS & set(store.folders(f"{name}/"))), None)
        hint = f"Did you mean {store.uri.rstrip('/')}/{within}? " if within else ""
        raise InputError(what, where=store.uri, do_next=f"{hint}Give the address that `edm2 run --store` was given.")
    return store


def _local(folder: Path) -> Store:
    from edm2core.store.local import LocalStore

    return LocalStore(folder)
