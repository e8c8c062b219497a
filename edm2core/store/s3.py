"""The store as a bucket of MinIO, SeaweedFS, AWS or another S3 service."""

from __future__ import annotations

import configparser
import errno
import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TypeVar
from xml.etree.ElementTree import ParseError

from minio.commonconfig import CopySource
from minio.error import MinioException, S3Error
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential
from urllib3.exceptions import HTTPError, MaxRetryError

from edm2core.errors import IntegrityError, MissingError, StoreError
from edm2core.plan.manifest import FileRecord
from edm2core.store.base import UNKNOWN_S, Entry, check_path, check_prefix, file_record
from edm2core.store.bucket import bucket_of
from edm2core.store.s3_client import LOOK_RETRIES, PASSING, Connection, connect, explain

T = TypeVar("T")
S = TypeVar("S", bound=IO[bytes])
PART = 16 * 2**20  # bytes of a part; several are in memory at once
PAUSE_S = 0.2  # before a second try, and then ever more
MAX_PARTS = 9_000  # S3 allows 10,000
READ, WRITE, LIST, DELETE = "s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteObject"
DIGEST, WRITER = "sha256", "writer"  # what is written beside every object


class S3Store:
    """A store below a prefix of a bucket. Every object carries its SHA-256, which is checked whenever it is read."""

    def __init__(self, uri: str, bucket: str, prefix: str, connection: Connection) -> None:
        self.uri, self.bucket = uri, bucket
        self._prefix, self._connection, self._client = prefix, connection, connection.client
        self._fetched: dict[Path, tuple[tuple[int, int, int], FileRecord]] = {}

    @classmethod
    def open(cls, uri: str) -> S3Store:
        """The store at `s3://bucket/prefix` or `minio://bucket/prefix`, once its bucket has been seen.

        Raises InputError for an address that cannot be one; StoreError if the bucket cannot be reached, is missing or denied.
        """
        bucket, folder = bucket_of(uri)
        uri, prefix = uri.rstrip("/"), f"{folder}/" if folder else ""
        look = cls(uri, bucket, prefix, connect(uri, LOOK_RETRIES))
        look._do(LIST, "", lambda: next(iter(look._client.list_objects(look.bucket, prefix or None)), None))
        return cls(uri, bucket, prefix, connect(uri, region=look._connection.region))

    def read(self, path: str) -> bytes:
        return self._checked(path, None, io.BytesIO).getvalue()

    def read_part(self, path: str, start: int, size: int) -> bytes:
        name = self._name(path)

        def get() -> bytes:
            response = self._client.get_object(self.bucket, name, offset=start, length=size)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

        try:
            return self._do(READ, path, get)
        except StoreError as error:
            if isinstance(error.__cause__, S3Error) and error.__cause__.code == "InvalidRange":
                return b""  # it ends before
            raise

    def write(self, path: str, data: bytes) -> None:
        name, beside = self._name(path), {DIGEST: hashlib.sha256(data).hexdigest()}
        self._do(WRITE, path, lambda: self._client.put_object(self.bucket, name, io.BytesIO(data), len(data), metadata=beside))

    def create(self, path: str, data: bytes) -> bool:
        """Like Store.create, by the header If-None-Match, which the SDK's own put_object cannot send."""
        name, writer = self._name(path), secrets.token_hex(16)
        headers = {
            "If-None-Match": "*",
            "Content-Type": "application/octet-stream",
            f"x-amz-meta-{DIGEST}": hashlib.sha256(data).hexdigest(),
            f"x-amz-meta-{WRITER}": writer,
        }

        def put() -> bool:
            try:
                self._client._execute("PUT", self.bucket, name, body=data, headers=dict(headers))
            except S3Error as error:
                if error.code != "PreconditionFailed" and error.response.status != 412:
                    raise
                return self._beside(name).get(WRITER) == writer  # an earlier try of this very call may have arrived
            return True

        return self._do(WRITE, path, put)

    def upload(self, source: Path, path: str) -> FileRecord:
        """Like Store.upload; large files go in parts, which are tried again one by one."""
        name = self._name(path)
        with _disk(source):
            if not source.is_file():
                raise MissingError("The file that was to be stored is not there.", where=str(source))
            before = source.stat()
            record = file_record(source)
        part = max(PART, -(-record.size // MAX_PARTS))

        def put() -> None:
            with source.open("rb") as stream:
                try:
                    self._client.put_object(self.bucket, name, stream, record.size, metadata={DIGEST: record.sha256}, part_size=part)
                except S3Error as error:  # an earlier try to join the parts may have succeeded, its answer lost
                    if error.code != "NoSuchUpload" or self._beside(name).get(DIGEST) != record.sha256:
                        raise

        with _disk(source):
            self._do(WRITE, path, put)
            after = source.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            self.delete(path)
            raise IntegrityError("The file changed while it was being stored.", where=str(source), do_next="Run again.")
        return record

    def fetch(self, path: str, folder: Path, record: FileRecord | None = None) -> Path:
        """A file `folder`/`path` with the object's bytes; what lies there already and is right is not fetched again."""
        target = folder / check_path(path)
        if record is not None and self._is_there(target, record):
            return target
        temporary = target.with_name(f".{secrets.token_hex(4)}.part")
        try:
            with _disk(folder):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._checked(path, record, lambda: temporary.open("wb")).close()
                os.replace(temporary, target)
                found = record or file_record(target)
                self._fetched[target] = (_identity(target), found)
        finally:
            with suppress(OSError):
                temporary.unlink()
        return target

    def record(self, path: str) -> FileRecord:
        found, digest = self._download(path, len)
        if digest not in ("", found.sha256):  # damaged, or only what came over the wire
            found, digest = self._download(path, len)
        return found

    def copy(self, source: str, path: str) -> None:
        """Like Store.copy, within the server; above 5 GiB the SDK does it in parts."""
        name, origin = self._name(path), CopySource(self.bucket, self._name(source))
        self._do(f"{READ}, {WRITE}", source, lambda: self._client.copy_object(self.bucket, name, origin))

    def stat(self, path: str) -> Entry | None:
        name = self._name(path)
        try:
            found = self._do(READ, path, lambda: self._client.stat_object(self.bucket, name))
        except MissingError:
            return None
        return Entry(path, found.size or 0, self._age(found.last_modified))

    def list(self, prefix: str) -> Iterator[Entry]:
        name = self._prefix + check_prefix(prefix)
        found = self._do(LIST, prefix, lambda: list(self._client.list_objects(self.bucket, name or None, recursive=True)))
        entries = (
            Entry((each.object_name or "").removeprefix(self._prefix), each.size or 0, self._age(each.last_modified))
            for each in found
            if not each.is_dir
        )
        yield from sorted(entries)  # not every server sorts as S3 does

    def folders(self, prefix: str) -> tuple[str, ...]:
        name = self._prefix + check_prefix(prefix)
        found = self._do(LIST, prefix, lambda: list(self._client.list_objects(self.bucket, name or None)))
        return tuple(sorted((each.object_name or "").removeprefix(name).rstrip("/") for each in found if each.is_dir))

    def delete(self, path: str) -> None:
        name = self._name(path)
        self._do(DELETE, path, lambda: self._client.remove_object(self.bucket, name))

    def sweep(self, older_than_s: float, could_commit: Callable[[str], bool]) -> int:
        """Like Store.sweep: unfinished uploads in parts, which only some servers list and MinIO removes itself after a day."""
        right = "s3:ListBucketMultipartUploads, s3:AbortMultipartUpload"

        def abort() -> int:
            freed, begun = 0, self._client._list_multipart_uploads(self.bucket, prefix=self._prefix or None)
            for upload in begun.uploads:
                path = (upload.object_name or "").removeprefix(self._prefix)
                if self._age(upload.initiated_time) > max(older_than_s, UNKNOWN_S) and not could_commit(path):
                    parts = self._client._list_parts(self.bucket, upload.object_name, upload.upload_id).parts
                    self._client._abort_multipart_upload(self.bucket, upload.object_name, upload.upload_id)
                    freed += sum(part.size or 0 for part in parts)
            return freed

        return self._do(right, "", abort)

    def _name(self, path: str) -> str:
        return self._prefix + check_path(path)

    def _age(self, when: datetime | None) -> float:
        return max(0.0, self._connection.http.server_time() - when.timestamp()) if when else 0.0

    def _beside(self, name: str) -> dict[str, str]:
        return _meta(self._client.stat_object(self.bucket, name).metadata or {})

    def _is_there(self, target: Path, record: FileRecord) -> bool:
        with suppress(OSError):
            if self._fetched.get(target) == (_identity(target), record):
                return True
            if target.stat().st_size == record.size and file_record(target) == record:
                self._fetched[target] = (_identity(target), record)
                return True
        return False

    def _checked(self, path: str, record: FileRecord | None, open_sink: Callable[[], S]) -> S:
        """The object's bytes in a new sink, verified; what the wire did to them once is mended by a second try."""
        for last in (False, True):
            sink = open_sink()
            try:
                found, digest = self._download(path, sink.write)
            except BaseException:
                sink.close()
                raise
            if found == record or (record is None and digest in ("", found.sha256)):
                return sink
            sink.close()
            if last:
                wanted = f"{record.size} with {record.sha256[:12]}…" if record else f"SHA-256 {digest[:12]}…"
                raise IntegrityError(
                    f"The stored object is damaged: {found.size} bytes with SHA-256 {found.sha256[:12]}…, recorded were {wanted}.",
                    where=f"{self.uri}/{path}",
                    do_next="Delete the result it belongs to; running again makes it anew.",
                )
        raise AssertionError

    def _download(self, path: str, take: Callable[[bytes], object]) -> tuple[FileRecord, str]:
        """Give an object's bytes to `take`, going on where a connection broke; what came, and the digest that was stored beside it."""
        name, digest, size = self._name(path), hashlib.sha256(), 0
        version: dict[str, str] = {}
        stated = ""

        def get() -> None:
            nonlocal size, stated
            response = self._client.get_object(self.bucket, name, offset=size, request_headers=dict(version))
            try:
                if etag := response.headers.get("etag"):
                    version["If-Match"] = etag
                stated = _meta(response.headers).get(DIGEST, "")
                for block in response.stream(2**20):
                    take(block)
                    digest.update(block)
                    size += len(block)
            finally:
                response.close()
                response.release_conn()

        self._do(READ, path, get)
        return FileRecord(size, digest.hexdigest()), stated

    def _do(self, right: str, path: str, work: Callable[[], T]) -> T:
        """One request, again where that can help; what the service says is put into words. `right` is what it needs."""
        try:
            return Retrying(
                stop=stop_after_attempt(6), wait=wait_random_exponential(PAUSE_S, max=10), retry=retry_if_exception(_passes), reraise=True
            )(work)
        except (MinioException, HTTPError, ParseError, ValueError, configparser.Error) as error:
            raise explain(error, self._connection, self.bucket, f"{self._prefix}{path}", right) from error


def _passes(error: BaseException) -> bool:
    """Whether the same request may succeed; MaxRetryError has been tried enough."""
    if isinstance(error, S3Error):
        return error.code in PASSING
    return isinstance(error, HTTPError) and not isinstance(error, MaxRetryError)


def _meta(headers: Mapping[str, str]) -> dict[str, str]:
    """What was stored beside an object."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name.removeprefix("x-amz-meta-"): value for name, value in lower.items() if name.startswith("x-amz-meta-")}


def _identity(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextmanager
def _disk(where: Path) -> Iterator[None]:
    """This machine's own disk, on the way to the store or from it."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "This machine's disk is full." if full else f"This machine's disk: {error.strerror or error}."
        raise StoreError(what, where=str(error.filename or where), do_next="Free some space, then run again." if full else "") from error
