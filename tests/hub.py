"""A server that speaks as much of the Hugging Face Hub's protocol as publishing and reading take."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote


class Hub:
    """Data sets and models by their names, each a dict of files, under a URL; a context manager."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}  # of git LFS, by their SHA-256
        self.refuses = False

    def __enter__(self) -> "Hub":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Request,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit(self, name: str) -> str:
        return hashlib.sha1(repr(sorted(self.files[name].items())).encode()).hexdigest()


class _Request(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *said: object) -> None: ...

    def do_HEAD(self) -> None:
        self._file(with_body=False)

    def do_GET(self) -> None:
        if found := re.fullmatch(r"/api/(?:datasets|models)/([\w-]+/[\w-]+)(/revision/\w+)?", self._path()):
            self._json(self._info(found[1]) if found[1] in self.hub.files else None)
        elif found := re.fullmatch(r"/api/(?:datasets|models)/([\w-]+/[\w-]+)/tree/\w+(/.*)?", self._path()):
            self._json([self._entry(found[1], path) for path in self.hub.files[found[1]]])
        else:
            self._file(with_body=True)

    def do_PUT(self) -> None:
        self.hub.objects[self._path().rpartition("/")[2]] = self._body()
        self._json({})

    def do_POST(self) -> None:
        path, body = self._path(), self._body()
        if self.hub.refuses:
            self._json({"error": "You don't have the rights"}, status=403)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
            self.hub.files.setdefault(name, {})
            self._json({"url": f"{self.hub.url}/datasets/{name}", "name": name, "id": name})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/(?:datasets|models)/([\w-]+/[\w-]+)/preupload/\w+", path):
            modes = {True: "lfs", False: "regular"}
            files = [(file["path"], file["path"].endswith((".zip", ".png"))) for file in json.loads(body)["files"]]
            self._json(
                {"files": [{"path": p, "uploadMode": modes[large], "shouldIgnore": False} for p, large in files]}
            )
        elif path.endswith("/info/lfs/objects/batch"):
            asked = json.loads(body)["objects"]
            actions = [{"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}} for one in asked]
            objects = [one | {"actions": action} for one, action in zip(asked, actions, strict=True)]
            self._json({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/(?:datasets|models)/([\w-]+/[\w-]+)/commit/\w+", path):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.hub.files[found[1]][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.hub.files[found[1]][value["path"]] = self.hub.objects[value["oid"]]
            commit = self.hub.commit(found[1])
            self._json({"commitUrl": f"{self.hub.url}/datasets/{found[1]}/commit/{commit}", "commitOid": commit})
        elif found := re.fullmatch(r"/api/(?:datasets|models)/([\w-]+/[\w-]+)/paths-info/\w+", path):
            asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            held = self.hub.files.get(found[1], {})
            self._json([self._entry(found[1], one) for one in asked if one in held])
        else:
            self._json({"error": f"no such route: {path}"}, status=404)

    def _file(self, *, with_body: bool) -> None:
        found = re.fullmatch(r"(?:/datasets)?/([\w-]+/[\w-]+)/resolve/\w+/(.+)", self._path())
        data = self.hub.files.get(found[1], {}).get(found[2]) if found else None
        if data is None or found is None:
            self._json(None, status=404)
            return
        status, whole = 200, len(data)
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": self.hub.commit(found[1])}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), min(int(asked[2] or whole - 1), whole - 1)
            status, data = 206, data[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{end}/{whole}"
        self._answer(status, headers | {"Accept-Ranges": "bytes"}, data, with_body=with_body)

    def _info(self, name: str) -> dict[str, Any]:
        siblings = [{"rfilename": path} for path in self.hub.files[name]]
        return {"id": name, "sha": self.hub.commit(name), "siblings": siblings, "private": False, "tags": []}

    def _entry(self, name: str, path: str) -> dict[str, Any]:
        data = self.hub.files[name][path]
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _path(self) -> str:
        return unquote(self.path.partition("?")[0])

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = b""
            while size := int(self.rfile.readline(), 16):
                chunks += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return chunks
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, value: Any, status: int = 200) -> None:
        if value is None:
            status, value = 404, {"error": "not found"}
        self._answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode(), with_body=True)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, *, with_body: bool) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(data)
