"""The keyed store: results, scratch, leases and runs, in a local folder or in an S3 bucket."""

from __future__ import annotations

from edm2core.addresses import is_url
from edm2core.errors import InputError
from edm2core.paths import local_path
from edm2core.store.base import Store
from edm2core.store.bucket import bucket_of

PARTS = {"runs", "results", "sources", "scratch"}  # a store has at least one of these folders
MOST_LOOKED_INTO = 20  # folders in which a store is looked for, to suggest it

__all__ = ["Store", "check_address", "find_store", "open_store"]


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


def open_store(uri: str) -> Store:
    """The store at a path, a `file://` URI, or `s3://bucket/prefix` (also written `minio://bucket/prefix`).

    Raises InputError if it cannot be a store's address, StoreError if the store cannot be used.
    """
    check_address(uri)
    if not is_url(uri):
        from edm2core.store.local import LocalStore

        return LocalStore(local_path(uri))
    from edm2core.store.s3 import S3Store  # the client is slow to import

    return S3Store.open(uri)


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
