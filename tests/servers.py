"""A web server of files that answers ranges, lists as S3 does, counts what it is asked, and fails as it is told to.

python -m distillcache.tests.servers FOLDER DELAY RATE      seconds before an answer, bytes a second of all answers
"""

import contextlib
import getpass
import math
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qsl

import pytest
import s3fs

SENT = "/bytes-sent"
"""A path that says how many bytes of bodies were sent."""
ASKED = "/requests"
"""A path that says how many requests were answered."""
_PART, _PAGE = 1 << 16, 1000
Fault = Callable[["Request", int], bool]
"""Given a request and its number, answers it in another way and returns True, or leaves it to the server."""


class Server(ThreadingHTTPServer):
    """Serves a folder at `url`; `fault` may answer in its stead.

    `delay` is in seconds before each answer, `rate` in bytes a second of all answers together.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, fault: Fault | None = None, delay: float = 0.0, rate: float = math.inf) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.folder, self.fault, self.delay, self.rate, self._free = folder, fault, delay, rate, 0.0
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        """Bytes of bodies, by file."""
        self.listed: dict[str, list[str]] = {}
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

    def wait_for(self, nbytes: int) -> None:
        """Wait until so many bytes more may be sent."""
        with self._counting:
            self._free = max(self._free, time.monotonic()) + nbytes / self.rate
            wait = self._free - time.monotonic()
        time.sleep(max(0.0, wait))

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
        if self.path == SENT:
            return self._tell(self.server.sent.total())
        if self.path == ASKED:
            return self._tell(number)
        if "list-type=2" in self.path:
            return self._list()
        file = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if file.is_file():
            self.send_file(file, with_body=with_body)
        else:
            self.refuse(404)

    def send_file(
        self, file: Path, *, with_body: bool = True, change: Callable[[bytes], bytes] = lambda body: body
    ) -> None:
        """Send a file, or the range of it that was asked for; `change` may cut or damage it, the headers stay."""
        size, found = file.stat().st_size, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(found[1]), min(int(found[2] or size) + 1, size)) if found else (0, size)
        with file.open("rb") as opened:
            opened.seek(start)
            body = opened.read(end - start)
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{file.stat().st_mtime_ns:x}-{size:x}"')
        self.send_header("Last-Modified", formatdate(file.stat().st_mtime, usegmt=True))
        if found:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if with_body:
            sent = change(body)
            for start in range(0, len(sent), _PART):
                self.server.wait_for(len(sent[start : start + _PART]))
                self.wfile.write(sent[start : start + _PART])
            self.server.sent[file.name] += len(sent)
            if len(sent) < len(body):
                self.close_connection = True

    def _list(self) -> None:
        """Answer as S3 does: up to a thousand keys of a bucket, which is a folder, in order."""
        bucket, _, query = self.path.lstrip("/").partition("?")
        asked = dict(parse_qsl(query))
        prefix, page = asked.get("prefix", ""), min(_PAGE, int(asked.get("max-keys", _PAGE)))
        root = self.server.folder / bucket.strip("/")
        if prefix not in self.server.listed:
            files = (file for file in (root / prefix).rglob("*") if file.is_file())
            self.server.listed[prefix] = sorted(str(file.relative_to(root)) for file in files)
        keys = self.server.listed[prefix]
        first = int(asked.get("continuation-token", 0))
        shown, more = keys[first : first + page], first + page < len(keys)
        files = "".join(
            f"<Contents><Key>{key}</Key><Size>{(root / key).stat().st_size}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag></Contents>"
            for key in shown
        )
        token = f"<NextContinuationToken>{first + page}</NextContinuationToken>" if more else ""
        about = f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{len(shown)}</KeyCount>{token}"
        self._say(f"<ListBucketResult>{about}<IsTruncated>{str(more).lower()}</IsTruncated>{files}</ListBucketResult>")

    def _tell(self, number: int) -> None:
        self._say(str(number))

    def _say(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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


def listens(port: int) -> bool:
    """Return whether someone answers at a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port of this machine at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until someone answers at a port of this machine."""
    deadline = time.monotonic() + 60
    while not listens(port):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextlib.contextmanager
def nginx(folder: Path, at: Path) -> Iterator[str]:
    """Serve a folder by nginx, with lists of its folders, and yield its URL; what it writes goes below `at`."""
    port = free_port()
    places = "".join(f"{name}_temp_path {at};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (at / "nginx.conf").write_text(
        f"user {getpass.getuser()};\npid {at}/pid;\nerror_log {at}/errors;\ndaemon off;\nevents {{}}\n"
        f"http {{\n{places}access_log {at}/requests;\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; autoindex on; }}\n}}\n"
    )
    process = subprocess.Popen(["nginx", "-p", at, "-c", at / "nginx.conf", "-e", at / "errors"])
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def s3(bucket: str) -> Iterator[str]:
    """Serve S3 by moto, as a process, with a bucket, whose URL is yielded; this process's environment points there."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    given = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (given | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
                patch.setenv(name, value)
            wait_for(port)  # s3fs waits too, but less long than moto may take
            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem().mkdir(bucket)
            yield f"s3://{bucket}"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), delay=float(sys.argv[2]), rate=float(sys.argv[3]))
    print(server.url, flush=True)
    server.serve_forever()
