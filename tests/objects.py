"""Object storage for tests: a small S3 server of our own, which can fail, and moto's where it is installed.

moto is a real implementation of S3's protocol: `python -m venv V && V/bin/pip install 'moto[server]'`, with
`V/bin` on PATH or QD_MOTO=V/bin/moto_server.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "blobs"
KEY, SECRET = "test-key", "test-secret"


class Storage:
    """What the server holds, and how it misbehaves: `failing` is how many requests get an error of its."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, float] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.failing = 0
        self.away = False
        self.refusing = False
        self.url = ""

    def takes(self) -> bool:
        """Whether the next request is answered."""
        if self.failing > 0:
            self.failing -= 1
            return False
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage: Storage

    def log_message(self, *words: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self) -> tuple[str, dict[str, list[str]], bytes] | None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        storage = self.storage
        storage.requests.append((self.command, parts.path))
        if storage.away:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        if not storage.takes():
            self._answer(500, b"<Error><Code>InternalError</Code></Error>")
            return None
        signed = f"Credential={KEY}/" in self.headers.get("Authorization", "") or any(
            KEY in value for value in query.get("X-Amz-Credential", [])
        )
        if storage.refusing or not signed:
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            return None
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if bucket != BUCKET:
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
            return None
        return key, query, body

    def do_PUT(self) -> None:
        if (asked := self._begin()) is None:
            return
        key, query, body = asked
        if "uploadId" in query:
            self.storage.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
        else:
            self._keep(key, body)
        self._answer(200, ETag='"1"')

    def _keep(self, key: str, body: bytes) -> None:
        self.storage.objects[key] = body
        self.storage.written[key] = time.time()

    def do_POST(self) -> None:
        if (asked := self._begin()) is None:
            return
        key, query, body = asked
        if "delete" in query:
            names = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for name in names:
                self.storage.objects.pop(name, None)
            gone = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
            self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())
        elif "uploads" in query:
            number = uuid.uuid4().hex
            self.storage.uploads[number] = {}
            word = "InitiateMultipartUploadResult"
            text = f"<{word}><UploadId>{number}</UploadId></{word}>"
            self._answer(200, text.encode())
        else:
            parts = self.storage.uploads.pop(query["uploadId"][0])
            self._keep(key, b"".join(parts[number] for number in sorted(parts)))
            text = '<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>'
            self._answer(200, text.encode())

    def do_DELETE(self) -> None:
        if (asked := self._begin()) is None:
            return
        key, query, _ = asked
        if "uploadId" in query:
            self.storage.uploads.pop(query["uploadId"][0], None)
        self.storage.objects.pop(key, None)
        self._answer(204)

    def do_GET(self) -> None:
        if (asked := self._begin()) is None:
            return
        key, query, _ = asked
        if not key:
            self._list(query.get("prefix", [""])[0])
            return
        found = self.storage.objects.get(key)
        if found is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        headers = {"ETag": '"1"', "Last_Modified": "Mon, 30 Nov 2026 08:00:00 GMT"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or len(found)) + 1, len(found))
            if start >= len(found):
                self._answer(416, b"<Error><Code>InvalidRange</Code></Error>")
                return
            headers["Content_Range"] = f"bytes {start}-{end - 1}/{len(found)}"
            self._answer(206, found[start:end], **headers)
        else:
            self._answer(200, found, **headers)

    do_HEAD = do_GET

    def _list(self, prefix: str) -> None:
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(body)}</Size><ETag>1</ETag><LastModified>"
            f"{_stamp(self.storage.written[key])}</LastModified></Contents>"
            for key, body in sorted(self.storage.objects.items())
            if key.startswith(prefix)
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        self._answer(200, text.encode(), Content_Type="application/xml")


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at))


@contextmanager
def own_server() -> Iterator[Storage]:
    """A server on a port of its own."""
    storage = Storage()
    handler: Any = type("Handler", (_Handler,), {"storage": storage})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    storage.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield storage
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def moto_program() -> str | None:
    return os.environ.get("QD_MOTO") or shutil.which("moto_server")


@contextmanager
def moto_server() -> Iterator[str]:
    """moto's server, with the bucket; gives its URL."""
    program = moto_program()
    assert program is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                made = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
                urllib.request.urlopen(made, timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "moto does not answer"
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def credentials(folder: Path) -> Path:
    """A file as the controller reads it."""
    file = folder / "blobs-credentials"
    file.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    file.chmod(0o600)
    return file
