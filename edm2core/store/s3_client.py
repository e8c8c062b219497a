"""The way to an S3 service: address, credentials, retries, the server's clock, and its errors in words.

Nothing of it comes from a URI or a parameter, which would be shown in logs and user interfaces, but from the environment:
`EDM2_S3_ENDPOINT` (or `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`): http://host:port or https://host:port; none for s3:// means AWS.
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; or `EDM2_S3_CREDENTIALS`, a folder with the files `accesskey` and
`secretkey` (a mounted Secret); or AWS's credentials file (`AWS_SHARED_CREDENTIALS_FILE`, `AWS_PROFILE`); or, on AWS, the pod's role.
`AWS_REGION`; `SSL_CERT_FILE` for the certificates to trust.
"""

from __future__ import annotations

import logging
import os
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials import AWSConfigProvider, ChainedProvider, Credentials, EnvAWSProvider, IamAwsProvider, Provider
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.helpers import md5sum_hash
from urllib3.exceptions import HTTPError, MaxRetryError, NameResolutionError, ReadTimeoutError, SSLError
from urllib3.util import Retry

from edm2core.errors import InputError, MissingError, StoreError

AWS = "https://s3.amazonaws.com"
LOOK_RETRIES, WORK_RETRIES, SILENT_RETRIES = 4, 14, 6  # 7 s until an address is called wrong; 105 s for a server that worked and comes back
BACKOFF_S = 0.5
PASSING = {  # errors of a service that the same request may not meet again
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "XAmzContentSHA256Mismatch",
}
FULL = {"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "InsufficientCapacity"}
MISSING = {"NoSuchKey", "NoSuchObject", "XMinioInvalidObjectName"}
DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden"}
UNKNOWN_KEY = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "TokenRefreshRequired",
    "AuthorizationHeaderMalformed",
}

log = logging.getLogger(__name__)
logging.getLogger("urllib3.connectionpool").addFilter(lambda record: not record.msg.startswith("Retrying ("))  # _Retry says it once


class Connection(NamedTuple):
    """A client and how it was reached."""

    client: Minio
    http: Http
    endpoint: str


class Http(urllib3.PoolManager):
    """Keeps the server's clock: ages must not depend on this machine's."""

    _offset: float | None = None

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        response = super().urlopen(method, url, redirect, **kw)
        date = response.headers.get("Date")
        if date:
            self._offset = parsedate_to_datetime(date).timestamp() - time.monotonic()
        return response

    def server_time(self) -> float:
        """Seconds since 1970 by the server's clock, as of its last answer."""
        return time.time() if self._offset is None else self._offset + time.monotonic()


class _Client(Minio):  # type: ignore[misc]
    """Sends the MD5 of every body: SeaweedFS checks that, and not the SHA-256 in the signature, which the SDK holds to be enough."""

    def _build_headers(self, host: str, headers: Any = None, body: bytes | None = None, creds: Any = None) -> Any:
        headers, date = super()._build_headers(host, headers, body, creds)
        if body and "Content-MD5" not in headers:
            headers["Content-MD5"] = md5sum_hash(body)
        return headers, date


class _Retry(Retry):
    """Says once that it has to wait; of answers that never came, each of which took its whole time-out, it bears fewer."""

    def increment(self, method: Any = None, url: Any = None, response: Any = None, error: Any = None, *rest: Any, **named: Any) -> Self:
        if isinstance(error, ReadTimeoutError) and sum(isinstance(p.error, ReadTimeoutError) for p in self.history) >= SILENT_RETRIES:
            raise MaxRetryError(named.get("_pool"), url, error) from error  # type: ignore[arg-type]
        if len(self.history) == 2 and self.total and self.total > LOOK_RETRIES:
            log.warning("The store does not answer as it should (%s); trying again for some minutes.", error or response.status)
        return super().increment(method, url, response, error, *rest, **named)


class _MountedSecret(Provider):  # type: ignore[misc]
    """Reads at every request, since Kubernetes replaces the files when the Secret changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def retrieve(self) -> Credentials:
        return Credentials(*((self._folder / name).read_text().strip() for name in ("accesskey", "secretkey")))


def connect(uri: str, retries: int = WORK_RETRIES) -> Connection:
    """A client for the service of an `s3://` or `minio://` URI; talks to nobody yet. Raises InputError for unusable settings."""
    endpoint = next((os.environ[n] for n in ("EDM2_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(n)), "")
    if not endpoint and uri.startswith("minio://"):
        raise InputError("It is not said where MinIO is.", where=uri, do_next="Set EDM2_S3_ENDPOINT, for example to http://minio:9000.")
    parts = urlsplit(endpoint or AWS)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.username:
        raise InputError(
            "This is not the address of an object store.",
            where=f"EDM2_S3_ENDPOINT={parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()}",
            do_next="Write http://host:port or https://host:port; credentials come separately.",
        )
    http = Http(
        num_pools=4,
        maxsize=16,
        timeout=urllib3.Timeout(connect=10, read=60),
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("SSL_CERT_FILE") or os.environ.get("AWS_CA_BUNDLE") or certifi.where(),
        retries=_Retry(
            total=retries,
            other=0,  # a certificate does not get better
            allowed_methods=None,  # all that is asked of a store may be asked again
            status_forcelist=(429, 500, 502, 503, 504),
            backoff_factor=BACKOFF_S,
            backoff_max=10,
            backoff_jitter=0.25,
        ),
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
    client = _Client(parts.netloc, secure=parts.scheme == "https", region=region, http_client=http, credentials=_credentials(not endpoint))
    return Connection(client, http, endpoint or AWS)


def _credentials(on_aws: bool) -> Provider:
    folder = os.environ.get("EDM2_S3_CREDENTIALS")
    if folder:
        missing = [name for name in ("accesskey", "secretkey") if not (Path(folder) / name).is_file()]
        if missing:
            raise InputError(f"The folder with the store's credentials has no file {missing[0]}.", where=f"EDM2_S3_CREDENTIALS={folder}")
        return _MountedSecret(Path(folder))
    return ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), *([IamAwsProvider()] if on_aws else [])])


def explain(error: Exception, endpoint: str, bucket: str, path: str, right: str) -> StoreError:
    """What went wrong, for a person: naming the endpoint, the bucket, and the right that the request needs."""
    where = f"{endpoint}, bucket {bucket}" + (f", {path}" if path else "")
    if isinstance(error, S3Error):
        return _refused(error, where, bucket, right)
    if isinstance(error, MaxRetryError):
        return _unreachable(error.reason or error, where, endpoint)
    if isinstance(error, HTTPError):
        return StoreError(f"The connection to the store broke: {error}.", where=where, do_next="Run again.", permanent=False)
    if isinstance(error, ServerError | InvalidResponseError):
        status = getattr(error, "status_code", None) or getattr(error, "_code", "?")
        return StoreError(
            f"The answer (HTTP {status}) is not that of an S3 service.",
            where=where,
            do_next="Check EDM2_S3_ENDPOINT: is it the port of the S3 API, not of a console?",
            permanent=False,
        )
    if isinstance(error, ValueError) and "credential" in str(error).lower():
        return StoreError(
            "There are no credentials for the store.",
            where=where,
            do_next="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or EDM2_S3_CREDENTIALS to a folder with accesskey and secretkey.",
        )
    return StoreError(f"The store could not do it: {error}.", where=where, do_next="Run again.", permanent=False)


def _refused(error: S3Error, where: str, bucket: str, right: str) -> StoreError:
    code = error.code or ""
    if code in MISSING:
        return MissingError("This is not in the store.", where=where)
    if code == "NoSuchBucket":
        return StoreError(
            "The bucket does not exist.", where=where, do_next=f"Make it, for example: mc mb ALIAS/{bucket}; or correct the address."
        )
    if code in DENIED:
        return StoreError("The store denies access.", where=where, do_next=f"Its credentials need the right {right} on this bucket.")
    if code in UNKNOWN_KEY:
        return StoreError(
            f"The store does not accept the credentials ({code}).", where=where, do_next="Check the access key and the secret key."
        )
    if code in FULL or error.response.status == 507:
        return StoreError(
            "The store is full.",
            where=where,
            do_next="Free some space (edm2 gc) or raise the quota, then run again; finished work is kept.",
        )
    if code == "RequestTimeTooSkewed":
        return StoreError("The clocks of the store and of this machine differ too much.", where=where, do_next="Set the clock right.")
    words = f"{code}: {error.message}" if error.message else code
    return StoreError(
        f"The store refuses: {words}", where=where, do_next=f"The request needs the right {right}.", permanent=code not in PASSING
    )


def _unreachable(reason: BaseException, where: str, endpoint: str) -> StoreError:
    if isinstance(reason, SSLError):
        return StoreError(
            f"The store's certificate is not trusted: {reason}.", where=where, do_next="Set SSL_CERT_FILE to its authority's certificate."
        )
    if isinstance(reason, NameResolutionError):
        return StoreError("The store's host name is not known here.", where=where, do_next="Check EDM2_S3_ENDPOINT.", permanent=False)
    return StoreError(
        f"The store does not answer: {reason}.", where=where, do_next=f"Is the service at {endpoint} up? Then run again.", permanent=False
    )
