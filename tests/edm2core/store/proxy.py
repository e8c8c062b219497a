"""A proxy in front of a real S3 service that breaks chosen requests in chosen ways."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message><Resource>/</Resource></Error>"


@dataclass
class Fault:
    """unavailable: 503 without asking the server · dropped: close before asking · lost: close after asking, without its answer ·
    truncated: half of the answer's body · flipped: one bit of the answer's body · flipped-in: one bit of the request's body ·
    error:CODE:STATUS: an S3 error · or a function called before the request is passed on."""

    kind: str | Callable[[], None]
    method: str = ""
    part: str = ""
    times: int = 1


@dataclass
class Proxy:
    """An HTTP proxy in front of a real server that breaks chosen requests in chosen ways."""

    upstream: str
    host: str = "127.0.0.1"  # the address to listen at
    faults: list[Fault] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    clock_shift: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self.server = ThreadingHTTPServer((self.host, 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.server.server_port}"

    def fault(self, kind: str | Callable[[], None], method: str = "", part: str = "", times: int = 1) -> None:
        """Do this to the next `times` requests of a method whose path contains `part`."""
        self.faults.append(Fault(kind, method, part, times))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def take(self, method: str, path: str) -> str | Callable[[], None]:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method in ("", method) and fault.part in path:
                    fault.times -= 1
                    self.happened.append(f"{method} {path}")
                    return fault.kind
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.owner.take(self.command, self.path)
        if callable(kind):
            kind()
            kind = ""
        if kind == "dropped":
            self.close_connection = True
            return
        if kind == "unavailable" or kind.startswith("error:"):
            code, status = ("SlowDown", 503) if kind == "unavailable" else (kind.split(":")[1], int(kind.split(":")[2]))
            self.answer(status, {"Content-Type": "application/xml"}, ERROR.format(code=code).encode())
            return
        if kind == "flipped-in":
            body = flipped(body)
        upstream = http.client.HTTPConnection(self.owner.upstream.removeprefix("http://"), timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            response = upstream.getresponse()
            data = response.read()
        except OSError:
            self.close_connection = True
            return
        finally:
            upstream.close()
        if kind == "lost":
            self.close_connection = True
            return
        headers = {name: value for name, value in response.getheaders() if name.lower() not in ("connection", "transfer-encoding")}
        if self.owner.clock_shift and "Date" in headers:
            headers["Date"] = formatdate(parsedate_to_datetime(headers["Date"]).timestamp() + self.owner.clock_shift, usegmt=True)
        self.answer(response.status, headers, flipped(data) if kind == "flipped" else data, kind == "truncated")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815

    def answer(self, status: int, headers: dict[str, str], data: bytes, truncated: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if truncated else data)
        else:
            self.end_headers()
        self.close_connection = self.close_connection or truncated


def flipped(data: bytes) -> bytes:
    """The same bytes but for one bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data
