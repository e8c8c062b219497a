"""The way to an S3 service: address, credentials, retries, the server's clock, and its errors in words.

Nothing of it comes from a URI or a parameter, which would be shown in logs and user interfaces, but from the environment:
`EDM2_S3_ENDPOINT` (or `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`): http://host:port or https://host:port; none for s3:// means AWS.
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; or `EDM2_S3_CREDENTIALS`, a folder with the files `accesskey` and
`secretkey` (a mounted Secret); or AWS's credentials file (`AWS_SHARED_CREDENTIALS_FILE`, `AWS_PROFILE`); or, on AWS, the pod's role.
`AWS_REGION`; `SSL_CERT_FILE` for the certificates to trust.
"""

from __future__ import annotations

import configparser
import logging
import os
import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urljoin, urlsplit
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio.credentials import AWSConfigProvider, ChainedProvider, Credentials, EnvAWSProvider, IamAwsProvider, Provider
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.helpers import md5sum_hash
from urllib3.exceptions import HTTPError, MaxRetryError, NameResolutionError, ReadTimeoutError, SSLError
from urllib3.util import Retry

from edm2core.addresses import shown
from edm2core.answers import page
from edm2core.errors import InputError, MissingError, StoreError
from edm2core.store.bucket import ENDPOINTS, check_endpoint

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
WRONG_CREDENTIAL = {  # the variable whose value a service does not take
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY",
    "InvalidToken": "AWS_SESSION_TOKEN",
    "InvalidTokenId": "AWS_SESSION_TOKEN",
    "ExpiredToken": "AWS_SESSION_TOKEN",
    "TokenRefreshRequired": "AWS_SESSION_TOKEN",
    "RequestExpired": "AWS_SESSION_TOKEN",
}
OTHER_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "InvalidRegion"}
TO_A_PAGE = (302, 303)  # no S3 service redirects so, but what asks people to log in does
PERHAPS_OTHER_REGION = {"Redirect", "RetryHead", "BadRequest"}  # the SDK's own, of an answer without words

log = logging.getLogger(__name__)
logging.getLogger("urllib3.connectionpool").addFilter(lambda record: not record.msg.startswith("Retrying ("))  # _Retry says it once


class Connection(NamedTuple):
    """A client and how it was reached."""

    client: Minio
    http: Http
    endpoint: str
    named_by: str  # the variable that says where it is

    @property
    def region(self) -> str | None:
        """The region that requests are signed for: a service may have named another than the environment."""
        return self.client._base_url.region  # type: ignore[no-any-return]


class Http(urllib3.PoolManager):
    """Keeps the server's clock: ages must not depend on this machine's."""

    _offset: float | None = None
    last: urllib3.BaseHTTPResponse | None = None
    led_to: str | None = None  # where the last answer sent the request

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        response = self.last = super().urlopen(method, url, False, **kw)
        self.led_to = response.headers.get("Location") if 300 <= response.status < 400 else None
        if self.led_to and redirect and response.status not in TO_A_PAGE:
            retries = kw.get("retries") or self.connection_pool_kw["retries"]
            kw["retries"] = retries.increment(method, url, response=response)  # raises where there are too many
            return self.urlopen(method, urljoin(url, self.led_to), redirect, **kw)
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

    def _url_open(self, method: str, region: str, *given: Any, **named: Any) -> Any:
        headers = dict(named.get("headers") or {})
        try:
            answer = super()._url_open(method, region, *given, **named)
            kind = answer.headers.get("content-type") or ""
            if method not in ("GET", "HEAD") and kind.startswith("text/html"):  # the SDK would take a page for success
                raise InvalidResponseError(answer.status, kind, answer.data.decode(errors="replace"))
            return answer
        except S3Error as error:
            wanted = _wanted_region(error)
            if not wanted or wanted == region:
                raise
            if self._base_url.region != wanted:
                log.warning("The bucket is in region %s, not in %s (AWS_REGION).", wanted, region)
            self._base_url._region = wanted
            return super()._url_open(method, wanted, *given, **{**named, "headers": headers})


def _wanted_region(error: S3Error) -> str:
    """The region in which a service wants to be asked for the bucket, if its answer names one."""
    body = error.response.data.decode(errors="replace") if error.response.data else ""
    found = re.search(r"<Region>([a-z0-9-]+)</Region>", body) or re.search(r"expecting '([a-z0-9-]+)'", error.message or "")
    header = error.response.headers.get("x-amz-bucket-region", "")
    return (header or (found[1] if found else "")) if error.code in OTHER_REGION | PERHAPS_OTHER_REGION else ""


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
        return Credentials(*((self._folder / name).read_text(encoding="utf-8").strip() for name in ("accesskey", "secretkey")))


def connect(uri: str, retries: int = WORK_RETRIES, region: str | None = None) -> Connection:
    """A client for the service of an `s3://` or `minio://` URI, which says so itself where it is in another than the `region`.

    Talks to nobody yet. Raises InputError for unusable settings.
    """
    named_by = next((name for name in ENDPOINTS if os.environ.get(name)), "")
    endpoint = os.environ.get(named_by, "")
    if not endpoint and uri.startswith("minio://"):
        raise InputError("It is not said where MinIO is.", where=uri, do_next="Set EDM2_S3_ENDPOINT, for example to http://minio:9000.")
    if endpoint:
        check_endpoint(named_by, endpoint)
    parts = urlsplit(endpoint or AWS)
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
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
    client = _Client(parts.netloc, secure=parts.scheme == "https", region=region, http_client=http, credentials=_credentials(not endpoint))
    return Connection(client, http, endpoint or AWS, named_by or ENDPOINTS[0])


def _credentials(on_aws: bool) -> Provider:
    folder = os.environ.get("EDM2_S3_CREDENTIALS")
    if folder:
        missing = [name for name in ("accesskey", "secretkey") if not (Path(folder) / name).is_file()]
        if missing:
            raise InputError(f"The folder with the store's credentials has no file {missing[0]}.", where=f"EDM2_S3_CREDENTIALS={folder}")
        return _MountedSecret(Path(folder))
    file: list[Provider] = []
    with suppress(RuntimeError):  # no home folder, so no file in it
        file = [AWSConfigProvider()]
    return ChainedProvider([EnvAWSProvider(), *file, *([IamAwsProvider()] if on_aws else [])])


def explain(error: Exception, connection: Connection, bucket: str, path: str, right: str) -> StoreError:
    """What went wrong, for a person: naming the endpoint, the bucket, the right that the request needs, and what the service said."""
    where = f"{connection.endpoint}, bucket {bucket}" + (f", {path}" if path else "")
    if isinstance(error, S3Error) and error.code:
        return _refused(error, connection, where, bucket, right)
    if isinstance(error, MaxRetryError):
        return _unreachable(error.reason or error, where, connection)
    if isinstance(error, HTTPError):
        return StoreError(f"The connection to the store broke: {error}.", where=where, do_next="Run again.", permanent=False)
    no_list = isinstance(error, ValueError) and str(error).startswith("XML element")  # XML, which is not that of S3
    if no_list or isinstance(error, S3Error | ServerError | InvalidResponseError | ParseError):
        return _no_service(error, where, connection)
    if isinstance(error, configparser.Error):
        return StoreError(  # its own words quote the file
            f"The file of AWS credentials is malformed ({type(error).__name__}, line {getattr(error, 'lineno', '?')}).",
            where=os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials",
            do_next="Mend it, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    if isinstance(error, ValueError) and "credential" in str(error).lower():
        return StoreError(
            "There are no credentials for the store.",
            where=where,
            do_next="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or EDM2_S3_CREDENTIALS to a folder with accesskey and secretkey.",
        )
    return StoreError(f"The store could not do it: {error}.", where=where, do_next="Run again.", permanent=False)


def _no_service(error: Exception, where: str, connection: Connection) -> StoreError:
    """What answers is no S3 service: a console, a proxy's page to log in, or the same port spoken to wrongly."""
    status = getattr(error, "status_code", None) or getattr(error, "_code", None)
    said = getattr(error, "_body", None) or ""
    if not isinstance(error, ServerError | InvalidResponseError):
        last = connection.http.last
        status, said = (last.status, last.data.decode(errors="replace")) if last else (None, "")
    if re.search(r"HTTPS (server|port)|SSL-enabled", said, re.IGNORECASE):
        return StoreError(
            "The store speaks https, and was spoken to in http.",
            where=f"{connection.named_by}={connection.endpoint}",
            do_next=f"Write https:// in {connection.named_by}.",
        )
    words = re.search(r"<Message>(.*?)</Message>", said, re.DOTALL)  # MinIO's console answers programs in XML
    what = page(said) or (f"“{' '.join((words[1] if words else said).split())[:80]}”" if said.strip() else "")
    if connection.http.led_to:
        what = f"a redirection to {_without_query(connection.http.led_to)}"
    return StoreError(
        f"The answer (HTTP {status or '?'}) is not that of an S3 service{f': it is {what}' if what else ''}.",
        where=where,
        do_next=f"Check {connection.named_by}: is it the port of the S3 API, not of a console, and not behind a page to log in?",
        permanent=status is None or status < 500,
    )


def _without_query(address: str) -> str:
    """An address without secrets, which may lack its host."""
    return re.split("[?#]", shown(address), maxsplit=1)[0]


def _refused(error: S3Error, connection: Connection, where: str, bucket: str, right: str) -> StoreError:
    code = error.code or ""
    words = f"{code}: {error.message.rstrip('.')}" if error.message else code
    endpoint = "" if connection.endpoint == AWS else f", or {connection.named_by} to the region's address"
    if wanted := _wanted_region(error):
        return StoreError(
            f"The bucket is in another region, {wanted} ({words}).", where=where, do_next=f"Set AWS_REGION to {wanted}{endpoint}."
        )
    if code in OTHER_REGION:
        return StoreError(
            f"The bucket is in another region ({words}).", where=where, do_next=f"Set AWS_REGION to the bucket's region{endpoint}."
        )
    if "kms" in words.lower() and code == "NotImplemented":
        return StoreError(
            f"The bucket is encrypted, and its server has no key service ({words}).",
            where=where,
            do_next="Ask who runs the server to give it one, for MinIO by MINIO_KMS_SECRET_KEY or MINIO_KMS_KES_ENDPOINT.",
        )
    if "kms" in words.lower():
        return StoreError(
            f"The store cannot use the key that the bucket is encrypted with ({words}).",
            where=where,
            do_next="The key must be there and enabled, and on AWS the credentials need kms:GenerateDataKey and kms:Decrypt on it: "
            "ask who runs the bucket.",
        )
    if code in MISSING:
        return MissingError("This is not in the store.", where=where)
    if code == "NoSuchBucket":
        return StoreError(
            "The bucket does not exist.", where=where, do_next=f"Make it, for example: mc mb ALIAS/{bucket}; or correct the address."
        )
    if code in DENIED:  # MinIO's word, too, where the user was removed or disabled whom a token stands for
        gone = ", and the user whom AWS_SESSION_TOKEN stands for must be there" if os.environ.get("AWS_SESSION_TOKEN") else ""
        return StoreError(
            f"The store denies access ({words}).",
            where=where,
            do_next=f"Its credentials need the right {right} on this bucket{gone}.",
        )
    if code in WRONG_CREDENTIAL:
        return _wrong_credential(code, words, where)
    if code in FULL or error.response.status == 507:
        return StoreError(
            f"The store is full ({words}).",
            where=where,
            do_next="Free some space (edm2 gc) or raise the quota, then run again; finished work is kept.",
        )
    if code == "RequestTimeTooSkewed":
        return StoreError(
            f"The clocks of the store and of this machine differ too much ({words}).", where=where, do_next="Set the clock right."
        )
    return StoreError(
        f"The store refuses: {words}.", where=where, do_next=f"The request needs the right {right}.", permanent=code not in PASSING
    )


def _wrong_credential(code: str, words: str, where: str) -> StoreError:
    """Credentials that the service does not take, with the variable or file that they came from."""
    variable, folder = WRONG_CREDENTIAL[code], os.environ.get("EDM2_S3_CREDENTIALS")
    expired = code in ("ExpiredToken", "TokenRefreshRequired", "RequestExpired")
    if folder:
        source = f"the files in EDM2_S3_CREDENTIALS={folder}"
    elif os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_ACCESS_KEY"):
        stale = variable == "AWS_SESSION_TOKEN" and not expired
        source = f"{variable}, or unset it where the keys are not temporary" if stale else variable
    else:
        source = f"{os.environ.get('AWS_SHARED_CREDENTIALS_FILE') or '~/.aws/credentials'} (AWS_PROFILE)"
    what = "The credentials for the store have expired" if expired else "The store does not accept the credentials"
    return StoreError(f"{what} ({words}).", where=where, do_next=f"{'Log in again, and renew' if expired else 'Correct'} {source}.")


def _unreachable(reason: BaseException, where: str, connection: Connection) -> StoreError:
    endpoint, named_by = connection.endpoint, connection.named_by
    if isinstance(reason, SSLError):
        if re.search("WRONG_VERSION_NUMBER|HTTP_REQUEST|record layer failure", str(reason), re.IGNORECASE):
            return StoreError(
                "The store speaks http, and was spoken to in https.",
                where=f"{named_by}={endpoint}",
                do_next=f"Write http:// in {named_by}.",
            )
        variable = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") or not os.environ.get("AWS_CA_BUNDLE") else "AWS_CA_BUNDLE"
        return StoreError(
            f"The store's certificate is not trusted: {reason}.",
            where=where,
            do_next=f"Set {variable} to its authority's certificate, or correct the host in {named_by}.",
        )
    led_to = connection.http.led_to
    if led_to:
        return StoreError(
            f"What answers is not an S3 service: it is a redirection to {_without_query(led_to)}.",
            where=where,
            do_next=f"Check {named_by}: is it the port of the S3 API, not of a console, and not behind a page to log in?",
        )
    if "BadStatusLine" in repr(reason):
        return StoreError(
            "What answers is not an S3 service: it does not speak HTTP.",
            where=where,
            do_next=f"Check the port in {named_by}.",
        )
    if isinstance(reason, NameResolutionError):
        return StoreError("The store's host name is not known here.", where=where, do_next=f"Check {named_by}.", permanent=False)
    return StoreError(
        f"The store does not answer: {reason}.",
        where=where,
        do_next=f"Is the service at {endpoint} ({named_by}) up? Then run again.",
        permanent=False,
    )
