"""The store as a bucket of an S3 service: MinIO, SeaweedFS, AWS or another."""

import configparser
import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TypeVar
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from urllib3.exceptions import HTTPError, MaxRetryError

from edm2core.errors import IntegrityError, MissingError, StoreError
from edm2core.plan.manifest import FileRecord
from edm2core.store import bucket_of
from edm2core.store.base import (
    UNKNOWN_S,
    Entry,
    check_path,
    check_prefix,
    damaged,
    file_record,
    identity,
    local_disk,
    unchanged,
)
from edm2core.store.s3_client import PASSING, WORK_RETRIES, Client, explain

T = TypeVar("T")
PART = 16 * 2**20  # the least bytes of an upload's part; several parts are in memory at once
TRIES = 6  # the most for a request that the service refuses for now
AWAY_S = 105.0  # the most that others may answer in the place of a service that has answered before, as while it is started again
PAUSE_S = 0.2  # the most time before a second try; later pauses are longer
MAX_PARTS = 9_000  # the most parts of an upload; S3 allows 10,000
READ, WRITE, LIST, DELETE = "s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteObject"
DIGEST, WRITER = "x-amz-meta-sha256", "x-amz-meta-writer"  # headers with which objects are stored


class S3Store:
    """A store below a prefix of a bucket. Every object carries its SHA-256, which every read checks."""

    def __init__(self, uri: str) -> None:
        """The store at `s3://bucket/prefix` or `minio://bucket/prefix`, after listing its bucket once.

        Raises InputError if this is not the address of a bucket; StoreError if the bucket is missing, denied or cannot be reached.
        """
        self.bucket, folder = bucket_of(uri)
        self.uri, self._prefix = uri.rstrip("/"), f"{folder}/" if folder else ""
        self._client = Client(uri)
        self.endpoint = self._client.endpoint
        self._fetched: dict[Path, tuple[tuple[int, int, int], FileRecord]] = {}
        self._answered = False  # whether the service has answered once, so that its address is right
        self._do(LIST, "", lambda: next(iter(self._client.list_objects(self.bucket, self._prefix or None)), None))
        self._client.http.retry(WORK_RETRIES)
        self._answered = True

    def read(self, path: str) -> bytes:
        data = io.BytesIO()
        self._fill(data, path, None)
        return data.getvalue()

    def read_part(self, path: str, start: int, size: int) -> bytes:
        name = self._name(path)

        def get() -> bytes:
            with closing(self._client.get_object(self.bucket, name, offset=start, length=size)) as response:
                return bytes(response.read())

        try:
            return self._do(READ, path, get)
        except StoreError as error:
            if isinstance(error.__cause__, S3Error) and error.__cause__.code == "InvalidRange":
                return b""  # the object ends before `start`
            raise

    def write(self, path: str, data: bytes) -> None:
        name, metadata = self._name(path), {DIGEST: hashlib.sha256(data).hexdigest()}
        self._do(WRITE, path, lambda: self._client.put_object(self.bucket, name, io.BytesIO(data), len(data), metadata=metadata))

    def create(self, path: str, data: bytes) -> bool:
        """Like Store.create. It sends the header If-None-Match, which the SDK's put_object cannot."""
        name, writer = self._name(path), secrets.token_hex(16)
        headers = {
            "If-None-Match": "*",
            "Content-Type": "application/octet-stream",
            DIGEST: hashlib.sha256(data).hexdigest(),
            WRITER: writer,
        }

        def put() -> bool:
            try:
                self._client._execute("PUT", self.bucket, name, body=data, headers=dict(headers))
            except S3Error as error:
                if error.code != "PreconditionFailed" and error.response.status != 412:
                    raise
                return self._metadata(name).get(WRITER) == writer  # an earlier try of this call may have arrived
            return True

        return self._do(WRITE, path, put)

    def upload(self, source: Path, path: str) -> FileRecord:
        """Like Store.upload; large files go in parts, which are tried again one by one."""
        name = self._name(path)

        def put() -> None:
            part = max(PART, -(-record.size // MAX_PARTS))
            with source.open("rb") as stream:
                try:
                    self._client.put_object(self.bucket, name, stream, record.size, metadata={DIGEST: record.sha256}, part_size=part)
                except S3Error as error:  # an earlier try may have joined the parts, and its answer was lost
                    if error.code != "NoSuchUpload" or self._metadata(name).get(DIGEST) != record.sha256:
                        raise

        try:
            with local_disk(source), unchanged(source) as record:
                self._do(WRITE, path, put)
        except IntegrityError:
            self.delete(path)
            raise
        return record

    def fetch(self, path: str, folder: Path, record: FileRecord | None = None) -> Path:
        """A file `folder`/`path` with the object's bytes. If it is there already and verifies, it is not downloaded again."""
        target = folder / check_path(path)
        if record is not None and self._is_there(target, record):
            return target
        temporary = target.with_name(f".{secrets.token_hex(4)}.part")
        try:
            with local_disk(folder):
                target.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as sink:
                    self._fill(sink, path, record)
                os.replace(temporary, target)
                self._fetched[target] = (identity(target), record or file_record(target))
        finally:
            with suppress(OSError):
                temporary.unlink()
        return target

    def record(self, path: str) -> FileRecord:
        actual, digest = self._download(path, len)
        if digest not in ("", actual.sha256):  # either the object is damaged, or only what came over the wire
            actual, _ = self._download(path, len)
        return actual

    def stat(self, path: str) -> Entry | None:
        name = self._name(path)
        try:
            status = self._do(READ, path, lambda: self._client.stat_object(self.bucket, name))
        except MissingError:
            return None
        return Entry(path, status.size or 0, self._age(status.last_modified))

    def list(self, prefix: str) -> Iterator[Entry]:
        name = self._prefix + check_prefix(prefix)
        objects = self._do(LIST, prefix, lambda: list(self._client.list_objects(self.bucket, name or None, recursive=True)))
        files = ((item.object_name or "", item) for item in objects if not item.is_dir)
        entries = (Entry(path.removeprefix(self._prefix), item.size or 0, self._age(item.last_modified)) for path, item in files)
        yield from sorted(entries)  # not every server sorts as S3 does

    def folders(self, prefix: str) -> tuple[str, ...]:
        name = self._prefix + check_prefix(prefix)
        objects = self._do(LIST, prefix, lambda: list(self._client.list_objects(self.bucket, name or None)))
        return tuple(sorted((item.object_name or "").removeprefix(name).rstrip("/") for item in objects if item.is_dir))

    def delete(self, path: str) -> None:
        name = self._name(path)
        self._do(DELETE, path, lambda: self._client.remove_object(self.bucket, name))

    def sweep(self, older_than_s: float, could_commit: Callable[[str], bool]) -> int:
        """Like Store.sweep. Interrupted writes leave uploads of parts. Only some servers list these; MinIO removes them after a day."""
        right = "s3:ListBucketMultipartUploads, s3:AbortMultipartUpload"

        def abort() -> int:
            freed = 0
            for upload in self._client._list_multipart_uploads(self.bucket, prefix=self._prefix or None).uploads:
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
        return max(0.0, self._client.http.server_time() - when.timestamp()) if when else 0.0

    def _metadata(self, name: str) -> Mapping[str, str]:
        return self._client.stat_object(self.bucket, name).metadata or {}

    def _is_there(self, target: Path, record: FileRecord) -> bool:
        """Whether an earlier download is there and has the recorded bytes."""
        with suppress(OSError):
            seen = (identity(target), record)
            if self._fetched.get(target) == seen or (target.stat().st_size == record.size and file_record(target) == record):
                self._fetched[target] = seen
                return True
        return False

    def _fill(self, sink: IO[bytes], path: str, record: FileRecord | None) -> None:
        """Write an object's bytes into a file, verified. Bytes that were damaged on the way are downloaded a second time."""
        for _ in range(2):
            sink.seek(0)
            sink.truncate()
            actual, digest = self._download(path, sink.write)
            if actual == record or (record is None and digest in ("", actual.sha256)):
                return
        recorded = f"{record.size} with {record.sha256[:12]}…" if record else f"SHA-256 {digest[:12]}…"
        raise damaged("object", actual, recorded, f"{self.uri}/{path}")

    def _download(self, path: str, take: Callable[[bytes], object]) -> tuple[FileRecord, str]:
        """Give an object's bytes to `take`, going on where a connection broke.

        Returns the size and digest of what came, and the digest in the object's metadata, or "" where there is none.
        """
        name, digest, size = self._name(path), hashlib.sha256(), 0
        version: dict[str, str] = {}
        stated = ""

        def get() -> None:
            nonlocal size, stated
            with closing(self._client.get_object(self.bucket, name, offset=size, request_headers=dict(version))) as response:
                if etag := response.headers.get("etag"):
                    version["If-Match"] = etag
                stated = response.headers.get(DIGEST, "")
                for block in response.stream(2**20):
                    take(block)
                    digest.update(block)
                    size += len(block)

        self._do(READ, path, get)
        return FileRecord(size, digest.hexdigest()), stated

    def _do(self, right: str, path: str, work: Callable[[], T]) -> T:
        """Send a request, and again where that can help. `right` is the permission that it needs. Raises StoreError in plain words."""
        try:
            pauses = wait_random_exponential(PAUSE_S, max=10)
            return Retrying(stop=_often_enough, wait=pauses, retry=retry_if_exception(self._passes), reraise=True)(work)
        except (MinioException, HTTPError, ParseError, ValueError, configparser.Error) as error:
            raise explain(error, self._client, self.bucket, f"{self._prefix}{path}", right) from error

    def _passes(self, error: BaseException) -> bool:
        """Whether the same request may succeed if sent again. A request that raised MaxRetryError has been tried often enough."""
        if isinstance(error, S3Error):
            return error.code in PASSING
        return (self._answered and _is_of_others(error)) or (isinstance(error, HTTPError) and not isinstance(error, MaxRetryError))


def _often_enough(tries: RetryCallState) -> bool:
    error = tries.outcome.exception() if tries.outcome else None
    return (tries.seconds_since_start or 0) > AWAY_S if _is_of_others(error) else tries.attempt_number >= TRIES


def _is_of_others(error: BaseException | None) -> bool:
    """Whether the answer was not that of an S3 service."""
    return isinstance(error, InvalidResponseError | ServerError | ParseError)
