"""A real HTTP server of files on loopback whose manners a test chooses: ranges or none, broken transfers, errors."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served and how.

    Attributes:
        files: path without the leading "/" to content.
        ranges: answers 206 to a Range request; else 200 with everything.
        wrong_range: answers 206 with another part than asked for.
        errors: statuses to answer with first, one a request.
        cut_after: for one request each, close the connection after this many bytes of the body.
        announce: send a Content-Length.
        pause: seconds between pieces of 4 KiB.
        seen: (path, Range header) of every request.
    """

    files: dict[str, bytes]
    ranges: bool = True
    wrong_range: bool = False
    errors: list[int] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    announce: bool = True
    pause: float = 0.0
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve_files(server: FileServer) -> Iterator[FileServer]:
    """Serves on a free port of 127.0.0.1 until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(self, server)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.address = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def _answer(request: BaseHTTPRequestHandler, server: FileServer) -> None:
    path, asked = request.path.lstrip("/"), request.headers.get("Range")
    server.seen.append((path, asked))
    request.close_connection = True
    if server.errors:
        _empty(request, server.errors.pop(0))
        return
    if path not in server.files:
        _empty(request, 404)
        return
    content = server.files[path]
    start = int(match[1]) if server.ranges and asked and (match := re.fullmatch(r"bytes=(\d+)-", asked)) else None
    if start is not None and start >= len(content):
        _empty(request, 416)
        return
    if start is not None and server.wrong_range:
        server.wrong_range, start = False, 0
    request.send_response(200 if start is None else 206)
    body = content[start or 0:]
    if start is not None:
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    if server.announce:
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    _send(request, server, body)


def _send(request: BaseHTTPRequestHandler, server: FileServer, body: bytes) -> None:
    if server.cut_after:
        body = body[:server.cut_after.pop(0)]
    try:
        for start in range(0, len(body), 4096):
            request.wfile.write(body[start:start + 4096])
            request.wfile.flush()
            time.sleep(server.pause)
    except (BrokenPipeError, ConnectionResetError):
        return  # the client is gone, as some tests want


def _empty(request: BaseHTTPRequestHandler, status: int) -> None:
    request.send_response(status)
    request.send_header("Content-Length", "0")
    request.end_headers()
