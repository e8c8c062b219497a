"""The web server of a store. It answers GET and HEAD alone, and serves files of the store's runs and results alone.

Starlette routes requests and uvicorn speaks HTTP. This module holds the addresses, and the checks of what may be asked for.
"""

import errno
import hashlib
import ipaddress
import re
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import quote, unquote

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edm2core.config.validate import other_version
from edm2core.errors import EdmError, InputError, MissingError
from edm2core.store.base import Store
from pipelines.look.pages import Pages
from pipelines.look.runs import Look, confined

BLOCK = 2**20
TRIES = 20  # ports that are tried, beginning with the wanted one
WAITING = 1024  # connections that may wait to be accepted
GRACE_S = 1  # for answers that are being sent when the server is told to stop
DIGITS = 15  # most digits of a number in an address or a header
HTML = "text/html; charset=utf-8"
TYPES = {
    "html": HTML,
    "json": "application/json",
    "png": "image/png",
    **dict.fromkeys(("csv", "jsonl", "log", "txt", "yaml", "md", "tex"), "text/plain; charset=utf-8"),
}
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report's scripts run in an origin of their own, so that no file of a store can read the rest of it through this server.
FILE_POLICY = "sandbox allow-scripts allow-downloads allow-modals; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; font-src data:"  # noqa: E501
EVERYWHERE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin"}

View = Callable[[Request], Response]


class Server:
    """Serves one store on a socket that is already listening."""

    def __init__(self, store: Store, host: str, listener: socket.socket) -> None:
        self.store, self.port, self._listener = store, listener.getsockname()[1], listener
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"
        config = uvicorn.Config(
            _Application(store, host).app,
            lifespan="off",
            log_config=None,
            log_level="critical",  # a closed browser is not worth a line, and a live page asks every few seconds
            access_log=False,
            server_header=False,
            backlog=WAITING,
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until `stop` is called, or a signal's handler raises in this thread."""
        serving = threading.Thread(target=self._server.run, args=([self._listener],), daemon=True)
        serving.start()
        try:
            serving.join()
        finally:
            self.stop()
            serving.join(GRACE_S + 1)

    def stop(self) -> None:
        """Make `run` return soon. Any thread may call it."""
        self._server.should_exit = True


def listen(store: Store, host: str, port: int, *, exactly: bool) -> Server:
    """A server for the store at a port, or at the next free one unless `exactly`. Raises InputError if it cannot listen there."""
    for number in range(port, port + (1 if exactly or port == 0 else TRIES)):
        try:
            family, _, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            return Server(store, host, socket.create_server(address, family=family, backlog=WAITING))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise InputError(f"{host} is no address of this machine.", where="--host", do_next="Leave it out for localhost.") from None
            raise InputError(f"Port {number} cannot be used: {error.strerror}.", where="--port", do_next="Give one above 1023.") from None
    raise InputError(
        f"Something listens at port {port} already." if exactly else f"Ports {port} to {port + TRIES - 1} are all in use.",
        where="--port",
        do_next="Give another one (0: any that is free), or stop the program that listens there.",
    )


class _Application:
    """The Starlette application: the addresses of a store's pages and files."""

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self._pages = pages = Pages(Look(store))
        views: dict[str, View] = {
            "/": lambda ask: _fresh(ask, pages.runs(_is_live(ask))),
            "/values/": lambda ask: _fresh(ask, pages.values(_is_live(ask))),
            "/assets/{name}": lambda ask: _fresh(ask, *pages.asset(**ask.path_params)),
            "/api/runs": lambda ask: _fresh(ask, pages.runs_json(), "application/json"),
            "/api/runs/{run}": lambda ask: _fresh(ask, pages.run_json(**ask.path_params), "application/json"),
            "/runs/{run}/": lambda ask: _fresh(ask, pages.run(**ask.path_params, live=_is_live(ask))),
            "/runs/{run}/logs/{stage}/{key}": lambda ask: _fresh(ask, pages.log(**ask.path_params, live=_is_live(ask))),
            "/results/": lambda ask: _fresh(ask, pages.stages()),
            "/results/{stage}/": lambda ask: _fresh(ask, pages.stage(**ask.path_params, page=_page_number(ask))),
            "/results/{stage}/{key}/": lambda ask: _fresh(ask, pages.result(**ask.path_params)),
            "/store/{top}/{path:path}": self._file,
            "/{folder:path}": self._folder,
        }
        routes = [Route(path, self._in_words(view), methods=["GET"]) for path, view in views.items()]
        self.app = Starlette(routes=routes, middleware=[Middleware(_Guard, host=host, refuse=self._error)])
        self.app.router.redirect_slashes = False

    def _in_words(self, view: View) -> View:
        """The same view, whose errors become pages."""

        def answer(request: Request) -> Response:
            try:
                return view(request)
            except HTTPException as error:
                return self._error(HTTPStatus(error.status_code), error.detail, headers=dict(error.headers or {}))
            except (MissingError, InputError) as error:
                return self._error(HTTPStatus.NOT_FOUND, error.what, error.do_next)
            except (EdmError, ValidationError) as error:
                known = other_version(error) if isinstance(error, ValidationError) else error
                return self._error(HTTPStatus.BAD_GATEWAY, known.what, known.do_next)
            except Exception as error:
                return self._error(HTTPStatus.INTERNAL_SERVER_ERROR, f"This should not have happened: {type(error).__name__}: {error}")

        return answer

    def _folder(self, request: Request) -> Response:
        """A redirection for the address of a run or of results that lacks its last slash."""
        folder = request.path_params["folder"]
        if folder.partition("/")[0] not in ("runs", "results", "values") or folder.endswith("/"):
            raise MissingError("There is no such page.")
        return RedirectResponse(f"/{quote(folder)}/", HTTPStatus.MOVED_PERMANENTLY)

    def _file(self, request: Request) -> Response:
        top, below = request.path_params["top"], request.path_params["path"]
        path = f"{top}/{below}"
        served = top in ("runs", "results") and "/" in below and confined(self._store, path)
        entry = self._store.stat(path) if served else None
        if entry is None:
            raise MissingError("There is no such file in this store.")
        name = path.rpartition("/")[2]
        kind = TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")
        headers = {"Accept-Ranges": "bytes", "Content-Security-Policy": FILE_POLICY, "Cache-Control": "no-cache"}
        if kind == "application/octet-stream":
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        part = _part(request.headers.get("Range", ""), entry.size)
        start, end = part or (0, entry.size)
        if part:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{entry.size}"
        headers |= {"Content-Type": kind, "Content-Length": str(end - start)}
        status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
        if request.method == "HEAD":
            return Response(None, status, headers)
        # If the file shrinks meanwhile, the browser notices that bytes are missing.
        blocks = (self._store.read_part(path, at, min(BLOCK, end - at)) for at in range(start, end, BLOCK))
        return StreamingResponse(blocks, status, headers)

    def _error(self, status: HTTPStatus, what: str, do_next: str = "", headers: dict[str, str] | None = None) -> Response:
        page = self._pages.error(f"{status.value} {status.phrase}", what, do_next)
        headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store", **(headers or {})}
        return Response(page, status, headers, "text/html")


class _Guard:
    """Refuses a request before anything else handles it, by its method, the host that it names, and its path."""

    def __init__(self, app: ASGIApp, host: str, refuse: Callable[..., Response]) -> None:
        self._app, self._host, self._refuse = app, host, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(EVERYWHERE)
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        if scope["method"] not in ("GET", "HEAD"):
            return self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "This page can only be read.", headers={"Allow": "GET, HEAD"})
        if not self._is_meant(Headers(scope=scope).get("Host", "localhost")):  # HTTP/1.0 may leave it out; no browser does
            return self._refuse(
                HTTPStatus.MISDIRECTED_REQUEST,
                "This server does not answer to that name.",
                "Use its IP address or localhost. Other names are refused, so that no web page can reach it by a name of its own.",
            )
        if not _leads_nowhere_else(scope["raw_path"].partition(b"?")[0]):
            return self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")
        return None

    def _is_meant(self, asked: str) -> bool:
        """Whether a request names this server. A web page could let its own name lead here; its requests would name that."""
        name = re.sub(r":\d+$", "", asked.strip()).strip("[]").lower()
        if name in {"localhost", self._host.lower()}:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return not is_for_this_machine_alone(self._host) and name in {socket.gethostname().lower(), socket.getfqdn().lower()}
        return True  # an IP address cannot be made to lead elsewhere


def is_for_this_machine_alone(host: str) -> bool:
    """Whether only programs on this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _leads_nowhere_else(path: bytes) -> bool:
    """Whether each part of a path, decoded, is the plain name of a file or folder."""
    try:
        first, *parts = [unquote(part, errors="strict") for part in path.decode("ascii").split("/")]
    except UnicodeDecodeError:
        return False
    names = parts[:-1] if parts and not parts[-1] else parts
    return not first and all(name not in ("", ".", "..") and name.isprintable() and not {"/", "\\"} & set(name) for name in names)


def _is_live(request: Request) -> bool:
    return request.query_params.get("part") == "live"


def _page_number(request: Request) -> int:
    text = request.query_params.get("page") or "1"
    if not re.fullmatch(rf"[0-9]{{1,{DIGITS}}}", text):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "page is no number of a page.")
    return int(text)


def _part(asked: str, size: int) -> tuple[int, int] | None:
    """Start and end of the part that a Range header asks for; None if it asks for all of the file, or for several parts."""
    limits = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", asked)
    if not limits or not any(limits.groups()):
        return None
    if max(map(len, limits.groups())) > DIGITS:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The part that is asked for is no part of a file.")
    first, last = limits.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        whole = {"Content-Range": f"bytes */{size}"}
        raise HTTPException(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "The file has no such bytes.", headers=whole)
    return start, end


def _fresh(request: Request, text: str, kind: str = HTML) -> Response:
    """An answer that a browser caches, and revalidates each time."""
    body = text.encode(errors="replace")
    tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"} | ({"Content-Security-Policy": PAGE_POLICY} if kind == HTML else {})
    if tag in request.headers.get("If-None-Match", ""):
        return Response(None, HTTPStatus.NOT_MODIFIED, headers)
    return Response(body, HTTPStatus.OK, {**headers, "Content-Type": kind})
