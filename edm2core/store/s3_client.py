"""A client for an S3 service: its address, credentials, retries, the server's clock, and its errors in words.

The environment says how to reach the service, since URIs and parameters are shown in logs and user interfaces:
- `EDM2_S3_ENDPOINT` (or `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`): http://host:port or https://host:port. Without it s3:// means AWS.
- Credentials are `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`; or the files `accesskey` and `secretkey` in the
  folder `EDM2_S3_CREDENTIALS` (a mounted Secret); or AWS's credentials file (`AWS_SHARED_CREDENTIALS_FILE`, `AWS_PROFILE`); or, on AWS,
  the pod's role.
- `AWS_REGION`, and `SSL_CERT_FILE` for the certificates to trust.
"""

import configparser
import logging
import os
import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self
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
from edm2core.errors import InputError, MissingError, StoreError
from edm2core.http_answers import page
from edm2core.store import ENDPOINTS, check_endpoint

AWS = "https://s3.amazonaws.com"
LOOK_RETRIES = 4  # the most for the first request: an address that does not answer counts as wrong after 7 s
WORK_RETRIES = 14  # the most for a later request: a server that has answered before has 105 s to come back
SILENT_RETRIES = 6  # the most for a request that runs into its time-out
BACKOFF_S = 0.5
PASSING = {  # errors that may pass: the same request can succeed later
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
EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "RequestExpired")
WRONG_CREDENTIAL = {  # error code → the variable whose value the service refuses
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY",
    **dict.fromkeys(("InvalidToken", "InvalidTokenId", *EXPIRED), "AWS_SESSION_TOKEN"),
}
OTHER_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "InvalidRegion"}
TO_A_PAGE = (302, 303)  # the status codes with which a service redirects people to log in; S3 services do not use them
PERHAPS_OTHER_REGION = {"Redirect", "RetryHead", "BadRequest"}  # codes that the SDK itself gives to an answer without a body

log = logging.getLogger(__name__)
logging.getLogger("urllib3.connectionpool").addFilter(lambda record: not record.msg.startswith("Retrying ("))  # _Retry says so once


class Http(urllib3.PoolManager):
    """A connection pool that keeps the last answer, and the server's time, so that ages do not depend on this machine's clock."""

    _offset: float | None = None
    last: urllib3.BaseHTTPResponse | None = None
    led_to: str | None = None  # where the last answer redirected to

    def retry(self, times: int) -> None:
        """Send each request that fails again, `times` times at most, from now on."""
        self.connection_pool_kw["retries"] = _Retry(
            total=times,
            other=0,  # a wrong certificate stays wrong
            allowed_methods=None,  # every request to a store may be sent again
            status_forcelist=(429, 500, 502, 503, 504),
            backoff_factor=BACKOFF_S,
            backoff_max=10,
            backoff_jitter=BACKOFF_S / 2,
        )

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        response = self.last = super().urlopen(method, url, False, **kw)
        self.led_to = response.headers.get("Location") if 300 <= response.status < 400 else None
        if self.led_to and redirect and response.status not in TO_A_PAGE:
            retries = kw.get("retries") or self.connection_pool_kw["retries"]
            kw["retries"] = retries.increment(method, url, response=response)  # raises if there are too many
            return self.urlopen(method, urljoin(url, self.led_to), redirect, **kw)
        date = response.headers.get("Date")
        if date:
            self._offset = parsedate_to_datetime(date).timestamp() - time.monotonic()
        return response

    def server_time(self) -> float:
        """Seconds since 1970 by the server's clock, as of its last answer."""
        return time.time() if self._offset is None else self._offset + time.monotonic()


class Client(Minio):  # type: ignore[misc]
    """A client for the service of an `s3://` or `minio://` URI, which follows a bucket into its region.

    It sends the MD5 of every body, which SeaweedFS checks. The SDK relies on the SHA-256 in the signature, which SeaweedFS does not check.
    """

    def __init__(self, uri: str) -> None:
        """Prepare the client, without any request. Raises InputError for unusable settings."""
        named_by = next((name for name in ENDPOINTS if os.environ.get(name)), "")
        endpoint = os.environ.get(named_by, "")
        if endpoint:
            check_endpoint(named_by, endpoint)
        elif uri.startswith("minio://"):
            raise InputError("It is not said where MinIO is.", where=uri, do_next="Set EDM2_S3_ENDPOINT, for example to http://minio:9000.")
        self.endpoint, self.named_by = endpoint or AWS, named_by or ENDPOINTS[0]  # the service's address, and the variable that holds it
        self.http = Http(
            num_pools=4,
            maxsize=16,
            timeout=urllib3.Timeout(connect=10, read=60),
            cert_reqs="CERT_REQUIRED",
            ca_certs=os.environ.get("SSL_CERT_FILE") or os.environ.get("AWS_CA_BUNDLE") or certifi.where(),
        )
        self.http.retry(LOOK_RETRIES)
        parts = urlsplit(self.endpoint)
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
        credentials = _credentials(on_aws=not endpoint)
        super().__init__(parts.netloc, secure=parts.scheme == "https", region=region, http_client=self.http, credentials=credentials)

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
            if method not in ("GET", "HEAD") and kind.startswith("text/html"):  # the SDK takes a web page for success
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
    """The bucket's region, if the service refuses requests for another region and names the right one; else an empty string."""
    if error.code not in OTHER_REGION | PERHAPS_OTHER_REGION:
        return ""
    body = error.response.data.decode(errors="replace") if error.response.data else ""
    named = re.search(r"<Region>([a-z0-9-]+)</Region>", body) or re.search(r"expecting '([a-z0-9-]+)'", error.message or "")
    return error.response.headers.get("x-amz-bucket-region", "") or (named[1] if named else "")


class _Retry(Retry):
    """Retries requests, and logs this once. After a time-out it retries less often, since each try takes the whole time-out."""

    def increment(self, method: Any = None, url: Any = None, response: Any = None, error: Any = None, *rest: Any, **named: Any) -> Self:
        if isinstance(error, ReadTimeoutError) and sum(isinstance(p.error, ReadTimeoutError) for p in self.history) >= SILENT_RETRIES:
            raise MaxRetryError(named.get("_pool"), url, error) from error  # type: ignore[arg-type]
        if len(self.history) == 2 and self.total and self.total > LOOK_RETRIES:
            log.warning("The store does not answer as it should (%s); trying again for some minutes.", error or response.status)
        return super().increment(method, url, response, error, *rest, **named)


class _MountedSecret(Provider):  # type: ignore[misc]
    """Credentials from a mounted Secret, read at every request, since Kubernetes replaces the files when the Secret changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def retrieve(self) -> Credentials:
        return Credentials(*((self._folder / name).read_text(encoding="utf-8").strip() for name in ("accesskey", "secretkey")))


def _credentials(on_aws: bool) -> Provider:
    folder = os.environ.get("EDM2_S3_CREDENTIALS")
    if folder:
        missing = [name for name in ("accesskey", "secretkey") if not (Path(folder) / name).is_file()]
        if missing:
            raise InputError(f"The folder with the store's credentials has no file {missing[0]}.", where=f"EDM2_S3_CREDENTIALS={folder}")
        return _MountedSecret(Path(folder))
    file: list[Provider] = []
    with suppress(RuntimeError):  # there is no home folder
        file = [AWSConfigProvider()]
    return ChainedProvider([EnvAWSProvider(), *file, *([IamAwsProvider()] if on_aws else [])])


def explain(error: Exception, client: Client, bucket: str, path: str, right: str) -> StoreError:
    """The error for a person: it names the endpoint, the bucket, the right that the request needs, and what the service said."""
    fault = _fault(error, client, bucket, right)
    fault.where = fault.where or f"{client.endpoint}, bucket {bucket}" + (f", {path}" if path else "")
    return fault


def _fault(error: Exception, client: Client, bucket: str, right: str) -> StoreError:
    if isinstance(error, S3Error) and error.code in MISSING and "kms" not in (error.message or "").lower():
        return MissingError("This is not in the store.")
    if isinstance(error, S3Error) and error.code:
        return _refused(error, client, bucket, right)
    if isinstance(error, MaxRetryError):
        return _unreachable(error.reason or error, client)
    if isinstance(error, HTTPError):
        return StoreError(f"The connection to the store broke: {error}.", do_next="Run again.", permanent=False)
    no_list = isinstance(error, ValueError) and str(error).startswith("XML element")  # XML, but not that of S3
    if no_list or isinstance(error, S3Error | ServerError | InvalidResponseError | ParseError):
        return _no_service(error, client)
    if isinstance(error, configparser.Error):  # its own words would quote the file, which holds secrets
        what = f"The file of AWS credentials is malformed ({type(error).__name__}, line {getattr(error, 'lineno', '?')})."
        return StoreError(what, where=_credentials_file(), do_next="Mend it, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    if isinstance(error, ValueError) and "credential" in str(error).lower():
        folder = "EDM2_S3_CREDENTIALS to a folder with accesskey and secretkey"
        return StoreError(
            "There are no credentials for the store.", do_next=f"Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or {folder}."
        )
    return StoreError(f"The store could not do it: {error}.", do_next="Run again.", permanent=False)


def _no_service(error: Exception, client: Client) -> StoreError:
    """The fault where no S3 service answers: a console, a proxy's page to log in, or a port that speaks https and was asked in http."""
    status, said = getattr(error, "_code", None), getattr(error, "_body", None) or ""
    if isinstance(error, ServerError):
        status = error.status_code
    elif not isinstance(error, InvalidResponseError):
        last = client.http.last
        status, said = (last.status, last.data.decode(errors="replace")) if last else (None, "")
    if re.search(r"HTTPS (server|port)|SSL-enabled", said, re.IGNORECASE):
        return _other_scheme(client, "https", "http")
    message = re.search(r"<Message>(.*?)</Message>", said, re.DOTALL)  # MinIO's console answers programs in XML
    answer = page(said) or (f"“{' '.join((message[1] if message else said).split())[:80]}”" if said.strip() else "")
    if client.http.led_to:
        answer = f"a redirection to {_without_query(client.http.led_to)}"
    what = f"The answer (HTTP {status or '?'}) is not that of an S3 service{f': it is {answer}' if answer else ''}."
    return StoreError(what, do_next=_check_port(client), permanent=status is None or status < 500)


def _check_port(client: Client) -> str:
    return f"Check {client.named_by}: is it the port of the S3 API, not of a console, and not behind a page to log in?"


def _other_scheme(client: Client, speaks: str, spoken_to: str) -> StoreError:
    where = f"{client.named_by}={client.endpoint}"
    what = f"The store speaks {speaks}, and was spoken to in {spoken_to}."
    return StoreError(what, where=where, do_next=f"Write {speaks}:// in {client.named_by}.")


def _without_query(address: str) -> str:
    """An address without secrets. It may be the target of a redirection, without a host."""
    return re.split("[?#]", shown(address), maxsplit=1)[0]


def _refused(error: S3Error, client: Client, bucket: str, right: str) -> StoreError:
    """The fault where the service refuses a request with one of its codes."""
    code = error.code or ""
    words = f"{code}: {error.message.rstrip('.')}" if error.message else code
    region = _wanted_region(error)
    if region or code in OTHER_REGION:
        endpoint = "" if client.endpoint == AWS else f", or {client.named_by} to the region's address"
        what = f"The bucket is in another region{f', {region}' if region else ''} ({words})."
        return StoreError(what, do_next=f"Set AWS_REGION to {region or 'that of the bucket'}{endpoint}.")
    if "kms" in words.lower():
        return _no_key(code, words)
    if code == "NoSuchBucket":
        return StoreError("The bucket does not exist.", do_next=f"Make it, for example: mc mb ALIAS/{bucket}; or correct the address.")
    if code in DENIED:  # MinIO also says so of a token whose user was removed or disabled
        token = ", and the user whom AWS_SESSION_TOKEN stands for must be there" if os.environ.get("AWS_SESSION_TOKEN") else ""
        return StoreError(f"The store denies access ({words}).", do_next=f"Its credentials need the right {right} on this bucket{token}.")
    if code in WRONG_CREDENTIAL:
        return _wrong_credential(code, words)
    if code in FULL or error.response.status == 507:
        do_next = "Free some space (edm2 gc) or raise the quota, then run again; finished work is kept."
        return StoreError(f"The store is full ({words}).", do_next=do_next)
    if code == "RequestTimeTooSkewed":
        return StoreError(f"The clocks of the store and of this machine differ too much ({words}).", do_next="Set the clock right.")
    return StoreError(f"The store refuses: {words}.", do_next=f"The request needs the right {right}.", permanent=code not in PASSING)


def _no_key(code: str, words: str) -> StoreError:
    """The fault where the bucket is encrypted and its key cannot be used."""
    if code == "NotImplemented":
        do_next = "Ask who runs the server to give it one, for MinIO by MINIO_KMS_SECRET_KEY or MINIO_KMS_KES_ENDPOINT."
        return StoreError(f"The bucket is encrypted, and its server has no key service ({words}).", do_next=do_next)
    return StoreError(
        f"The store cannot use the key that the bucket is encrypted with ({words}).",
        do_next="The key must be there and enabled, and on AWS the credentials need kms:GenerateDataKey and kms:Decrypt on it: "
        "ask who runs the bucket.",
    )


def _wrong_credential(code: str, words: str) -> StoreError:
    """The fault where the service refuses the credentials; it names the variable or file that they came from."""
    variable, folder = WRONG_CREDENTIAL[code], os.environ.get("EDM2_S3_CREDENTIALS")
    expired = code in EXPIRED
    if folder:
        source = f"the files in EDM2_S3_CREDENTIALS={folder}"
    elif os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_ACCESS_KEY"):
        stale = variable == "AWS_SESSION_TOKEN" and not expired
        source = f"{variable}, or unset it where the keys are not temporary" if stale else variable
    else:
        source = f"{_credentials_file()} (AWS_PROFILE)"
    what = "The credentials for the store have expired" if expired else "The store does not accept the credentials"
    return StoreError(f"{what} ({words}).", do_next=f"{'Log in again, and renew' if expired else 'Correct'} {source}.")


def _credentials_file() -> str:
    return os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"


def _unreachable(reason: BaseException, client: Client) -> StoreError:
    """The fault where no answer came."""
    named_by, led_to = client.named_by, client.http.led_to
    if isinstance(reason, SSLError):
        if re.search("WRONG_VERSION_NUMBER|HTTP_REQUEST|record layer failure", str(reason), re.IGNORECASE):
            return _other_scheme(client, "http", "https")
        variable = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") or not os.environ.get("AWS_CA_BUNDLE") else "AWS_CA_BUNDLE"
        do_next = f"Set {variable} to its authority's certificate, or correct the host in {named_by}."
        return StoreError(f"The store's certificate is not trusted: {reason}.", do_next=do_next)
    if led_to:
        return StoreError(
            f"What answers is not an S3 service: it is a redirection to {_without_query(led_to)}.", do_next=_check_port(client)
        )
    if "BadStatusLine" in repr(reason):
        return StoreError("What answers is not an S3 service: it does not speak HTTP.", do_next=f"Check the port in {named_by}.")
    if isinstance(reason, NameResolutionError):
        return StoreError("The store's host name is not known here.", do_next=f"Check {named_by}.", permanent=False)
    do_next = f"Is the service at {client.endpoint} ({named_by}) up? Then run again."
    return StoreError(f"The store does not answer: {reason}.", do_next=do_next, permanent=False)
