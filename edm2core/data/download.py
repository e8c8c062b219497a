"""Downloading one file over HTTP: retried, continued where it stopped, and only ever complete under its own name."""

import fcntl
import http.client
import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from edm2core.addresses import shown
from edm2core.data.file_kinds import PAGE, beginning, kind_of, wrong
from edm2core.errors import EdmError, InputError

ATTEMPTS = 8
WAIT = wait_exponential(multiplier=0.5, max=10)  # seconds
TIMEOUT = 60  # seconds in which no byte arrives
CHUNK = 2**20


class _Unfinished(Exception):
    """The transfer broke off; the bytes that arrived stay on disk."""


@dataclass(frozen=True)
class Listener:
    """Callbacks of a download: `progress` gets the bytes received and the total, `say` the reason for another attempt."""

    progress: Callable[[int, int], None] = lambda _done, _total: None
    say: Callable[[str], None] = lambda _line: None


NOBODY = Listener()


@dataclass(frozen=True)
class Wanted:
    """A file to download, and the setting that names it."""

    url: str
    setting: str
    listener: Listener = NOBODY

    @property
    def where(self) -> str:
        return f"{self.setting}: {shown(self.url)}"

    @property
    def by_hand(self) -> str:
        return f"Check the network, or download the file by hand and set {self.setting} to its path."

    def again(self, attempt: RetryCallState) -> None:
        """Say why an attempt failed and when the next one is."""
        left, seconds = ATTEMPTS - attempt.attempt_number, attempt.next_action.sleep if attempt.next_action else 0.0
        failure = attempt.outcome.exception() if attempt.outcome else None
        self.listener.say(f"{shown(self.url)}: {failure}; trying again in {seconds:.0f} s, {left} more time{'s' * (left > 1)}")


def download(wanted: Wanted, target: Path, check: Callable[[Path], None]) -> Path:
    """Download to `target`, and return it. `check` raises InputError for a file with wrong bytes.

    A file that is already there is checked again. An unfinished download (`target` + ".part") is continued; if the result is wrong, the
    file is fetched once more from the start. Raises EdmError where the network or the disk fails, permanent if nothing has arrived, and
    InputError for an answer such as 404.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(target.name + ".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _download(wanted, target, check)
    except OSError as error:
        failure, do_next = f"The download cannot be written: {error.strerror}.", "Free some space, or check the permissions."
        raise EdmError(failure, where=str(error.filename or target), do_next=do_next) from error


def _download(wanted: Wanted, target: Path, check: Callable[[Path], None]) -> Path:
    if target.exists():
        try:
            check(target)
            return target
        except InputError:
            target.unlink()  # damaged in the cache, which holds only copies
    part = target.with_name(target.name + ".part")
    continued = part.exists()
    _transfer(wanted, part)
    try:
        check(part)
    except InputError as error:
        is_page = kind_of(beginning(part)) is PAGE
        part.unlink()
        if is_page:
            page = "The server sent a web page, not the file: perhaps one to log in, or to say that the link has expired."
            raise wrong(wanted.where, page, f"Open the URL in a browser. {wanted.by_hand}") from error
        if not continued:
            raise
        return _download(wanted, target, check)
    return part.replace(target)


def _transfer(wanted: Wanted, part: Path) -> None:
    retried, before = retry_if_exception_type(_Unfinished), _size(part)
    attempts = Retrying(stop=stop_after_attempt(ATTEMPTS), wait=WAIT, retry=retried, before_sleep=wanted.again, reraise=True)
    try:
        attempts(_continue, wanted, part)
    except _Unfinished as error:
        failure, got_nothing = f"The download failed {ATTEMPTS} times: {error}.", _size(part) == before
        raise EdmError(failure, where=wanted.where, do_next=wanted.by_hand, permanent=got_nothing) from error


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _continue(wanted: Wanted, part: Path) -> None:
    """One attempt: append to `part` what it lacks. Raises _Unfinished where another attempt may help."""
    done = _size(part)
    if (response := _open(wanted, done)) is None:
        return
    with response:
        if response.status != 206:
            done = 0  # the server sends the whole
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.unlink()
            raise _Unfinished("the server sent another part than was asked for")
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if done else "wb") as file:
            while chunk := _chunk(response):
                file.write(chunk)
                done += len(chunk)
                wanted.listener.progress(done, total or done)
    if total is not None and done != total:
        raise _Unfinished(f"the connection closed after {done:,} of {total:,} bytes")


def _open(wanted: Wanted, done: int) -> Any:
    """The server's answer with the bytes from `done` on; None if the file ends there, of which `check` then judges."""
    parts = urlsplit(wanted.url)
    user, _, host = parts.netloc.rpartition("@")
    headers = {"User-Agent": "edm2", "Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    request = Request(parts._replace(netloc=host, fragment="").geturl(), headers=headers)  # noqa: S310 (only http(s) is let through)
    if user:
        request.add_unredirected_header("Authorization", f"Basic {b64encode(unquote_to_bytes(user)).decode()}")
    try:
        return build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and done:
            return None
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Unfinished(f"the server answered {error.code} {error.reason}") from error
        refused = error.code in (401, 403, 407)
        do_next = f"Correct its user and password or its token, which may have expired. {wanted.by_hand}" if refused else "Correct the URL."
        raise wrong(wanted.where, f"The server answered {error.code} {error.reason}.", do_next) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(reason := getattr(error, "reason", error), ssl.SSLCertVerificationError):
            untrusted = f"The server's certificate is not trusted: {reason.verify_message}."
            raise wrong(wanted.where, untrusted, "Set SSL_CERT_FILE to its authority's certificate, or correct the URL.") from error
        raise _Unfinished(str(reason)) from error


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to http(s) only, and sends user and password to the same host only."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str) -> Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            return None
        follow = super().redirect_request(req, fp, code, msg, headers, newurl)
        authorization = req.unredirected_hdrs.get("Authorization")
        if follow is not None and authorization and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            follow.add_unredirected_header("Authorization", authorization)
        return follow


def _chunk(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Unfinished(str(error) or type(error).__name__) from error
