"""Downloading one file over HTTP: retried, continued where it stopped, and only ever complete under its own name."""

from __future__ import annotations

import fcntl
import http.client
import os
import ssl
from base64 import b64encode
from collections.abc import Callable
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from edm2core.addresses import shown
from edm2core.errors import EdmError, InputError

ATTEMPTS = 8
WAIT = wait_exponential(multiplier=0.5, max=10)  # seconds
TIMEOUT = 60  # seconds without a byte
CHUNK = 2**20
_BY_HAND = "Check the network, or download the file by hand and set data.source to its path."


class _Unfinished(Exception):
    """The transfer broke off; what arrived is kept."""


def download(url: str, target: Path, check: Callable[[Path], None], progress: Callable[[int, int], None] | None = None) -> Path:
    """`target` with the bytes of `url`, which `check` accepts (it raises where they are wrong).

    A file already there is checked again. What an unfinished call left (`target` + ".part") is continued; if the whole is then wrong, it is
    fetched once more from the start. Raises EdmError where the network or the disk fails, InputError for an answer such as 404.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(target.name + ".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _download(url, target, check, progress)
    except OSError as error:
        raise EdmError(
            f"The download cannot be written: {error.strerror}.",
            where=str(error.filename or target),
            do_next="Free some space, or check the permissions.",
        ) from error


def _download(url: str, target: Path, check: Callable[[Path], None], progress: Callable[[int, int], None] | None) -> Path:
    if target.exists():
        try:
            check(target)
            return target
        except InputError:
            target.unlink()  # damaged in the cache, which holds only copies
    part = target.with_name(target.name + ".part")
    continued = part.exists()
    while True:
        _transfer(url, part, progress)
        try:
            check(part)
            break
        except InputError as error:
            page = _is_page(part)
            part.unlink()
            if page:
                raise InputError(
                    "The server sent a web page, not the file: perhaps one to log in, or to say that the link has expired.",
                    where=f"data.source: {shown(url)}",
                    do_next=f"Open the URL in a browser. {_BY_HAND}",
                ) from error
            if not continued:
                raise
            continued = False
    os.replace(part, target)
    return target


def _transfer(url: str, part: Path, progress: Callable[[int, int], None] | None) -> None:
    attempts = Retrying(stop=stop_after_attempt(ATTEMPTS), wait=WAIT, retry=retry_if_exception_type(_Unfinished), reraise=True)
    try:
        attempts(_continue, url, part, progress)
    except _Unfinished as error:
        raise EdmError(f"The download failed {ATTEMPTS} times: {error}.", where=shown(url), do_next=_BY_HAND, permanent=False) from error


def _continue(url: str, part: Path, progress: Callable[[int, int], None] | None) -> None:
    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "edm2", "Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        response = build_opener(_Redirects).open(_request(url, headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and done:
            return  # nothing lies beyond what is here: the check decides
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Unfinished(f"the server answered {error.code} {error.reason}") from error
        do_next = "Correct the URL."
        if error.code in (401, 403, 407):
            do_next = f"Correct its user and password or its token, which may have expired. {_BY_HAND}"
        raise InputError(
            f"The server answered {error.code} {error.reason}.", where=f"data.source: {shown(url)}", do_next=do_next
        ) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(reason := getattr(error, "reason", error), ssl.SSLCertVerificationError):
            raise InputError(
                f"The server's certificate is not trusted: {reason.verify_message}.",
                where=f"data.source: {shown(url)}",
                do_next="Set SSL_CERT_FILE to its authority's certificate, or correct the URL.",
            ) from error
        raise _Unfinished(str(getattr(error, "reason", error))) from error
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
                if progress:
                    progress(done, total or done)
    if total is not None and done != total:
        raise _Unfinished(f"the connection closed after {done:,} of {total:,} bytes")


class _Redirects(HTTPRedirectHandler):
    """Follows to http(s) alone, with the user and password to the same host alone."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str) -> Request | None:
        follow = super().redirect_request(req, fp, code, msg, headers, newurl)
        known = req.unredirected_hdrs.get("Authorization")
        if follow is not None and known and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            follow.add_unredirected_header("Authorization", known)
        return follow


def _request(url: str, headers: dict[str, str]) -> Request:
    """What asks for the URL; its user and password go into a header."""
    parts = urlsplit(url)
    known, _, host = parts.netloc.rpartition("@")
    request = Request(parts._replace(netloc=host, fragment="").geturl(), headers=headers)  # noqa: S310 (only http(s) is let through)
    if known:
        request.add_unredirected_header("Authorization", f"Basic {b64encode(unquote_to_bytes(known)).decode()}")
    return request


def _is_page(file: Path) -> bool:
    with file.open("rb") as stream:
        begin = stream.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return begin.startswith((b"<!doctype html", b"<html"))


def _chunk(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Unfinished(str(error) or type(error).__name__) from error
