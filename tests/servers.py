"""A web server of files that answers ranges, counts what it is asked, and fails as it is told to."""

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

Fault = Callable[["Request", int], bool]
"""Given a request and its number, answers it in another way and returns True, or leaves it to the server."""


class Server(ThreadingHTTPServer):
    """Serves a folder at `url`; `fault` may answer in its stead, `delay` is in seconds before each answer."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, fault: Fault | None = None, delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.folder, self.fault, self.delay = folder, fault, delay
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        """Bytes of bodies, by file."""
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went."""

    def number(self, path: str) -> int:
        with self._counting:
            self.requests[path] += 1
            return self.requests.total()


class Request(BaseHTTPRequestHandler):
    """One request; what faults are made of stands here too."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *values: object) -> None:
        """Print nothing."""

    def _answer(self, *, with_body: bool) -> None:
        number = self.server.number(self.path)
        time.sleep(self.server.delay)
        if self.server.fault and self.server.fault(self, number):
            return
        file = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if file.is_file():
            self.send_file(file, with_body=with_body)
        else:
            self.refuse(404)

    def send_file(
        self, file: Path, *, with_body: bool = True, change: Callable[[bytes], bytes] = lambda body: body
    ) -> None:
        """Send a file, or the range of it that was asked for; `change` may cut or damage it, the headers stay."""
        data, found = file.read_bytes(), re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(found[1]), min(int(found[2] or len(data)) + 1, len(data))) if found else (0, len(data))
        body = data[start:end]
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{file.stat().st_mtime_ns:x}-{len(data):x}"')
        self.send_header("Last-Modified", formatdate(file.stat().st_mtime, usegmt=True))
        if found:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if with_body:
            sent = change(body)
            self.wfile.write(sent)
            self.server.sent[file.name] += len(sent)
            if len(sent) < len(body):
                self.close_connection = True

    def refuse(self, status: int) -> bool:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def redirect(self, url: str) -> bool:
        self.send_response(302)
        self.send_header("Location", url)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def reset(self) -> bool:
        """End the connection without an answer, by a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        return True
