"""A small Hub over local HTTP: the addresses that huggingface_hub asks, with faults on request."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
PAGE = 5  # entries of a listing in one answer
SMALL = (".json", ".vocab")  # kept by git itself, all else as large files


@dataclass
class Hub:
    """One dataset repository, and what goes wrong with it."""

    repo_id: str
    files: dict[str, bytes]
    endpoint: str = ""
    served: dict[str, bytes] = field(default_factory=dict)  # in place of what is listed
    cuts: dict[str, list[int]] = field(default_factory=dict)  # bytes sent before each cut
    statuses: dict[str, list[int]] = field(default_factory=dict)  # answered first
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range
    trusted: set[str] = field(default_factory=set)  # addresses, by their beginning, told the token
    reset: bool = False  # a cut is a reset, not an end
    hold: threading.Event | None = None  # a cut waits for it

    def fetched(self) -> list[str]:
        """The large files that were asked for."""
        paths = [path for _, path, _ in self.asked if path.startswith("/large/")]
        return [path.removeprefix("/large/datasets/") for path in paths]

    def listed(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        row = {"type": "file", "path": path, "size": len(content), "oid": blob}
        if not path.endswith(SMALL):
            sha256 = hashlib.sha256(content).hexdigest()
            row["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
        return row


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Who asked has gone."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and body in one packet
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, repo = unquote(url.path), self.hub.repo_id
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if self.headers.get("Authorization"):
            self.hub.trusted.add(path.split("/")[1])
        if path.startswith("/large/"):
            self._content(path.removeprefix("/large/"))
        elif path.startswith(tree := f"/api/datasets/{repo}/tree/{COMMIT}"):
            self._tree(path.removeprefix(tree).strip("/"), parse_qs(url.query))
        elif path in (f"/api/datasets/{repo}/revision/{rev}" for rev in ("main", COMMIT)):
            self._answer(200, json.dumps({"id": repo, "sha": COMMIT}).encode())
        elif path.startswith(f"/api/datasets/{repo}/revision/"):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(resolve := f"/datasets/{repo}/resolve/"):
            self._resolve(path.removeprefix(resolve).partition("/")[2])
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _tree(self, folder: str, query: dict[str, list[str]]) -> None:
        """In pages, with the address of the next."""
        before = f"{folder}/" if folder else ""
        names = [name for name in sorted(self.hub.files) if name.startswith(before)]
        if not names:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        start = int(query.get("cursor", ["0"])[0])
        rows = [{"type": "directory", "path": folder, "oid": "0" * 40}] if not start else []
        rows += [self.hub.listed(name) for name in names[start : start + PAGE]]
        address = f"{self.hub.endpoint}{urlsplit(self.path).path}?recursive=True"
        more = {"Link": f'<{address}&cursor={start + PAGE}>; rel="next"'}
        self._answer(200, json.dumps(rows).encode(), more if start + PAGE < len(names) else {})

    def _resolve(self, name: str) -> None:
        if name not in self.hub.files:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        row = self.hub.listed(name)
        oid = row.get("lfs", row)["oid"]
        said = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{oid}"', "ETag": f'"{oid}"'}
        if name.endswith(SMALL):
            self._content(name, said)
        else:  # large files are with another host
            said |= {"X-Linked-Size": str(row["size"])}
            elsewhere = self.hub.endpoint.replace("127.0.0.1", "localhost")
            self._answer(302, b"", said | {"Location": f"{elsewhere}/large/{name}"})

    def _content(self, name: str, said: dict[str, str] | None = None) -> None:
        if left := self.hub.statuses.get(name):
            self._answer(left.pop(0), b"")
            return
        content = self.hub.served.get(name, self.hub.files[name])
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start >= len(content):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        part, cuts = content[start:], self.hub.cuts.get(name)
        cut = cuts.pop(0) if cuts else None
        self._answer(206 if start else 200, part, (said or {}) | (span if start else {}), cut)

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:cut])
        self.wfile.flush()
        if cut is None:
            return
        self.close_connection = True
        if self.hub.hold is not None:
            self.hub.hold.wait(20)
        if self.hub.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
