"""The web server: GET and HEAD alone, for this machine unless told otherwise, and nothing outside a store's runs and results."""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import ValidationError

from edm2core.config.validate import other_version
from edm2core.errors import EdmError, InputError, MissingError
from edm2core.store.base import Store
from pipelines.serve.look import Look, confined
from pipelines.serve.pages import Pages

BLOCK = 2**20
TRIES = 20  # ports after the wanted one that are tried
TYPES = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "png": "image/png",
    **dict.fromkeys(("csv", "jsonl", "log", "txt", "yaml", "md", "tex"), "text/plain; charset=utf-8"),
}
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report's own scripts run, in an origin of their own: whatever stands in a store cannot read the rest of it through this server.
FILE_POLICY = "sandbox allow-scripts allow-downloads allow-modals; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; font-src data:"  # noqa: E501


@dataclass
class Answer:
    """What goes back; `file` is a path of the store whose bytes from `start` on, `size` of them, are the body."""

    body: bytes = b""
    kind: str = "text/html; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)
    file: str = ""
    start: int = 0
    size: int = 0


class Server(ThreadingHTTPServer):
    """Serves one store."""

    daemon_threads = True

    def __init__(self, store: Store, host: str, port: int) -> None:
        self.store, self.host = store, host
        self.look = Look(store)
        self.pages = Pages(self.look)
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news."""


def listen(store: Store, host: str, port: int, *, exactly: bool) -> Server:
    """A server for the store at that port, or unless `exactly` at the next free one; raises InputError where none can be had."""
    for number in range(port, port + (1 if exactly or port == 0 else TRIES)):
        try:
            return Server(store, host, number)
        except socket.gaierror:
            raise InputError(f"{host} is no address of this machine.", where="--host", do_next="Leave it out for localhost.") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno == errno.EADDRNOTAVAIL:
                raise InputError(f"{host} is no address of this machine.", where="--host", do_next="Leave it out for localhost.") from None
            raise InputError(f"Port {number} cannot be used: {error.strerror}.", where="--port", do_next="Give one above 1023.") from None
    raise InputError(
        f"Something listens at port {port} already." if exactly else f"Ports {port} to {port + TRIES - 1} are all in use.",
        where="--port",
        do_next="Give another one (0: any that is free), or end what listens there.",
    )


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edm2", ""
    timeout = 30

    def do_GET(self) -> None:
        self._send(self._answer())

    do_HEAD = do_GET  # noqa: N815

    def _refuse(self) -> None:
        self.close_connection = True  # its body is not read
        self._send(self._error(HTTPStatus.METHOD_NOT_ALLOWED, "This page can only be read.", headers={"Allow": "GET, HEAD"}))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a page that is live asks every few seconds."""

    def _answer(self) -> Answer:
        if not self._is_meant():
            return self._error(
                HTTPStatus.MISDIRECTED_REQUEST,
                "This server does not answer to that name.",
                "Ask by its IP address or as localhost: other names are refused, so that no web page can reach it by one.",
            )
        try:
            return self._route()
        except (MissingError, InputError) as error:
            return self._error(HTTPStatus.NOT_FOUND, error.what, error.do_next)
        except EdmError as error:
            return self._error(HTTPStatus.BAD_GATEWAY, error.what, error.do_next)
        except ValidationError as error:
            other = other_version(error)
            return self._error(HTTPStatus.BAD_GATEWAY, other.what, other.do_next)
        except Exception as error:
            return self._error(HTTPStatus.INTERNAL_SERVER_ERROR, f"This should not have happened: {type(error).__name__}: {error}")

    def _is_meant(self) -> bool:
        """Whether the name that was asked for is this server's: a web page that had its own name point here would ask for that one."""
        name = re.sub(r":\d+$", "", self.headers.get("Host", "").strip()).strip("[]").lower()
        if name in {"localhost", self.server.host.lower()}:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return not _is_loopback(self.server.host) and name in {socket.gethostname().lower(), socket.getfqdn().lower()}
        return True  # an address cannot be pointed elsewhere

    def _route(self) -> Answer:
        target = urlsplit(self.path)
        parts = _segments(target.path)
        query = {name: values[-1] for name, values in parse_qs(target.query).items()}
        live = query.get("part") == "live"
        pages = self.server.pages
        match parts:
            case [""]:
                return self._page(pages.runs(live))
            case ["assets", name]:
                return self._asset(name)
            case ["api", "runs"]:
                return self._json(pages.runs_json())
            case ["api", "runs", run]:
                return self._json(pages.run_json(run))
            case ["runs", run, ""]:
                return self._page(pages.run(run, live))
            case ["runs", run, "logs", stage, key]:
                return self._page(pages.log(run, stage, key, live))
            case ["results", ""]:
                return self._page(pages.stages())
            case ["results", stage, ""]:
                return self._page(pages.stage(stage, int(query["page"]) if query.get("page", "").isdecimal() else 1))
            case ["results", stage, key, ""]:
                return self._page(pages.result(stage, key))
            case ["store", *path] if len(path) > 2 and path[0] in ("runs", "results"):
                return self._file("/".join(path))
            case [*path] if path and path[-1] and path[0] in ("runs", "results"):
                return Answer(status=HTTPStatus.MOVED_PERMANENTLY, headers={"Location": f"{target.path}/"})
        raise MissingError("There is no such page.")

    def _page(self, text: str) -> Answer:
        return self._fresh(text.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": PAGE_POLICY})

    def _json(self, text: str) -> Answer:
        return self._fresh(text.encode(), "application/json")

    def _asset(self, name: str) -> Answer:
        text, kind = self.server.pages.asset(name)
        return self._fresh(text.encode(), kind)

    def _fresh(self, body: bytes, kind: str, headers: dict[str, str] | None = None) -> Answer:
        """An answer that a browser keeps and asks about each time."""
        tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache", **(headers or {})}
        if tag in self.headers.get("If-None-Match", ""):
            return Answer(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Answer(body, kind, headers=headers)

    def _file(self, path: str) -> Answer:
        entry = self.server.store.stat(path) if confined(self.server.store, path) else None
        if entry is None:
            raise MissingError("There is no such file in this store.")
        name = path.rsplit("/", 1)[1]
        kind = TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")
        headers = {"Accept-Ranges": "bytes", "Content-Security-Policy": FILE_POLICY, "Cache-Control": "no-cache"}
        if kind == "application/octet-stream":
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{_quoted(name)}"
        start, end = 0, entry.size
        if found := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = found.groups()
            start = int(first) if first else max(0, entry.size - int(last or 0))
            end = min(entry.size, int(last) + 1) if first and last else entry.size
            if start >= end:
                return self._error(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    "The file has no such bytes.",
                    headers={"Content-Range": f"bytes */{entry.size}"},
                )
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{entry.size}"
        status = HTTPStatus.PARTIAL_CONTENT if found else HTTPStatus.OK
        return Answer(b"", kind, status, headers, path, start, end - start)

    def _error(self, status: HTTPStatus, what: str, do_next: str = "", headers: dict[str, str] | None = None) -> Answer:
        page = self.server.pages.error(f"{status.value} {status.phrase}", what, do_next).encode()
        return Answer(page, status=status, headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store", **(headers or {})})

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            **answer.headers,
        }
        if answer.status != HTTPStatus.NOT_MODIFIED:
            headers |= {"Content-Type": answer.kind, "Content-Length": str(answer.size if answer.file else len(answer.body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or answer.status == HTTPStatus.NOT_MODIFIED:
            return
        for block in self._blocks(answer):
            self.wfile.write(block)

    def _blocks(self, answer: Answer) -> Iterator[bytes]:
        if not answer.file:
            yield answer.body
            return
        at, end = answer.start, answer.start + answer.size
        while at < end:
            block = self.server.store.read_part(answer.file, at, min(BLOCK, end - at))
            if not block:  # it has shrunk: the browser notices that bytes are missing
                self.close_connection = True
                return
            yield block
            at += len(block)


def run(server: Server) -> None:
    """Serve until a Ctrl-C or SIGTERM's exit comes."""
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        threading.Event().wait()
    finally:
        server.shutdown()
        server.server_close()


def is_for_this_machine_alone(host: str) -> bool:
    """Whether only programs of this machine reach what listens there."""
    return _is_loopback(host)


def _segments(path: str) -> list[str]:
    """The decoded parts of a path after its first slash; raises MissingError for one that could lead elsewhere."""
    try:
        parts = [unquote(part, errors="strict") for part in path.removeprefix("/").split("/")]
    except UnicodeDecodeError:
        raise MissingError("There is no such page.") from None
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part in (".", "..") or "/" in part or "\\" in part or not part.isprintable() or (not part and not last):
            raise MissingError("There is no such page.")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")
