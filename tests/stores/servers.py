"""Servers on the loopback interface: S3 (moto), HTTP with ranges, and a proxy that injects faults."""

import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit


@contextmanager
def serving(server: Any) -> Iterator[str]:
    """Run a server in a thread and give its URL."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def s3_server() -> Iterator[str]:
    """An S3 server with the bucket `bucket`; one request at a time, because moto's conditional puts are not atomic."""
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    inner = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()

    def one_at_a_time(environment: Any, start_response: Any) -> list[bytes]:
        with lock:
            return list(inner(environment, start_response))

    with serving(make_server("127.0.0.1", 0, one_at_a_time, threaded=True)) as url:
        request(url, "PUT", "/bucket")
        yield url


def request(url: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
    """Send one request and return the status."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


class _RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves a folder with etags and single ranges."""

    protocol_version = "HTTP/1.1"
    folder: ClassVar[Path]
    with_ranges: ClassVar[bool] = True
    with_etags: ClassVar[bool] = True

    def do_GET(self) -> None:
        path = self.folder / unquote(self.path).lstrip("/")
        if not path.is_file():
            self._answer(404, b"")
            return
        data = path.read_bytes()
        headers = {"Last-Modified": self.date_time_string(int(path.stat().st_mtime))}
        if self.with_etags:
            headers["ETag"] = etag = f'"{path.stat().st_mtime_ns:x}-{len(data):x}"'
            if self.headers.get("If-None-Match") == etag:
                self._answer(304, b"", headers)
                return
            if self.headers.get("If-Match") not in (None, etag):
                self._answer(412, b"", headers)
                return
        wanted = self.headers.get("Range")
        if wanted is None or not self.with_ranges:
            self._answer(200, data, headers)
            return
        first, last = wanted.removeprefix("bytes=").split("-")
        if int(first) >= len(data):
            self._answer(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
            return
        part = data[int(first) : int(last) + 1]
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self._answer(206, part, headers | {"Content-Range": span})

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def http_server(folder: Path, *, with_ranges: bool = True, with_etags: bool = True) -> Iterator[str]:
    """An HTTP server of the files in a folder."""
    fields = {"folder": folder, "with_ranges": with_ranges, "with_etags": with_etags}
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_RangeHandler,), fields))) as url:
        yield url


@dataclass
class FaultPlan:
    """What the proxy does to the next requests.

    Attributes:
        faults: Of the next requests that `applies` takes, in order; None lets one pass. Afterwards all pass.
            `503`, `403` and `409` (another conditional write is under way) answer without asking the server, `stall`
            never answers, `reset` closes the connection without asking the server, `lost` asks the server and closes
            the connection, `cut` closes it in the middle of the answer's body, `unmarked` removes metadata of vrekit
            from the request.
        applies: Takes method and path.
        seen: (method, path) of all requests.
    """

    faults: list[str | None] = field(default_factory=list)
    applies: Callable[[str, str], bool] = lambda method, path: True
    seen: list[tuple[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, method: str, path: str) -> str | None:
        with self._lock:
            self.seen.append((method, path))
            return self.faults.pop(0) if self.faults and self.applies(method, path) else None


class _ProxyHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: ClassVar[str]
    plan: ClassVar[FaultPlan]
    stopped: ClassVar[threading.Event]

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.plan.next_fault(self.command, self.path)
        if fault == "503":
            error = b"<Error><Code>SlowDown</Code></Error>"
            self._send(503, [], error, len(error))
            return
        if fault == "403":
            error = b"<Error><Code>AccessDenied</Code></Error>"
            self._send(403, [], error, len(error))
            return
        if fault == "409":
            error = b"<Error><Code>ConditionalRequestConflict</Code></Error>"
            self._send(409, [], error, len(error))
            return
        if fault == "stall":
            self.stopped.wait(20)
        if fault in ("stall", "reset"):
            self._break()
            return
        headers = {
            k: v for k, v in self.headers.items() if fault != "unmarked" or not k.lower().startswith("x-amz-meta-")
        }
        connection = http.client.HTTPConnection(urlsplit(self.target).netloc, timeout=10)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if fault == "lost":
            self._break()
            return
        names = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("content-length", "connection")]
        size = int(answer.getheader("Content-Length") or len(content))
        self._send(answer.status, names, content[: len(content) // 2] if fault == "cut" else content, size)
        if fault == "cut":
            self._break()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes, size: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()

    def _break(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        time.sleep(0.01)  # what was sent before may arrive
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections break on purpose."""


@contextmanager
def faulty_proxy(target: str) -> Iterator[tuple[str, FaultPlan]]:
    """A proxy in front of a server; its plan says what goes wrong."""
    plan, stopped = FaultPlan(), threading.Event()
    fields = {"target": target, "plan": plan, "stopped": stopped}
    with serving(_QuietServer(("127.0.0.1", 0), type("Proxy", (_ProxyHandler,), fields))) as url:
        try:
            yield url, plan
        finally:
            stopped.set()
