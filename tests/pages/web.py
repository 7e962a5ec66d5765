"""A file server that knows ranges, and injects faults."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class _Slowly(io.BufferedIOBase):
    """Writes in pieces; all the rest at once when it is told to go on."""

    def __init__(
        self, out: io.BufferedIOBase, piece: int, pause: float, go_on: threading.Event
    ) -> None:
        self._out = out
        self._piece = piece
        self._pause = pause
        self._go_on = go_on

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        for at in range(0, len(data), self._piece):
            self._go_on.wait(self._pause)
            self._out.write(data[at : at + self._piece])
        return len(data)


class Web:
    """Serves a directory on a port of the loopback.

    Attributes:
        asked: what was asked for: path and range.
        stall: requests whose path has this in it get no answer until `go_on`.
        trickle: answers come in pieces of so many bytes, with so many seconds in between.
        fail: how many requests are answered with an error from now on.
        corrupt: whether blobs' bytes are changed on the way.
        more: bytes that every answer has in addition.
        encoding: what its content is said to be encoded with.
        cut: how many connections end in the middle of a blob from now on, or, each second
            one, before it.
        redirect: the server that has the blobs, if it is another one.
        login: what has to be sent as Authorization, if anything.
        challenge: how that is asked for; "" for as registries do it.
        ranges: whether it knows ranges.
    """

    def __init__(self, root: Path, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.stall = ""
        self.trickle: tuple[int, float] | None = None
        self.fail = 0
        self.corrupt = False
        self.more = b""
        self.encoding = ""
        self.cut = 0
        self.redirect = ""
        self.login = ""
        self.challenge = ""
        self.ranges = True
        self.go_on = threading.Event()
        self._connections: list[socket.socket] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                web._connections.append(self.connection)

            def do_GET(self) -> None:
                web.asked.append((self.path, self.headers.get("Range", "")))
                if web.stall and web.stall in self.path:
                    web.go_on.wait(20)
                if self.path.startswith("/token?") and self.headers.get("Authorization"):
                    self.answer(200, b'{"token": "t"}')
                    return
                if web.login and self.headers.get("Authorization") != web.login:
                    challenge = 'Basic realm="x"'
                    if web.login.startswith("Bearer"):
                        challenge = f'Bearer realm="{web.url}/token",service="s",scope="r:x:pull"'
                    self.answer(401, b"", ("WWW-Authenticate", web.challenge or challenge))
                    return
                if web.fail:
                    web.fail -= 1
                    self.answer(503, b"", ("Retry-After", "3600"))
                    return
                if web.redirect and "/blobs/" in self.path:
                    there = ("Location", web.redirect + self.path)
                    self.answer(307, b"", there, ("Retry-After", "3600"))
                    return
                try:
                    data = (root / self.path.lstrip("/")).read_bytes()
                except OSError:
                    self.answer(404, b"")
                    return
                status = 200
                if web.ranges and (wanted := self.headers.get("Range")):
                    first, last = wanted.removeprefix("bytes=").split("-")
                    data = data[int(first) : int(last) + 1 if last else None]
                    status = 206
                if web.corrupt and "/blobs/" in self.path:
                    data = bytes(255 - byte for byte in data)
                encoding = (("Content-Encoding", web.encoding),) if web.encoding else ()
                self.answer(status, data + web.more, *encoding)

            def answer(self, status: int, data: bytes, *headers: tuple[str, str]) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                if web.trickle is not None:
                    self.wfile = _Slowly(self.wfile, *web.trickle, web.go_on)
                self.end_headers()
                try:
                    if web.cut and "/blobs/" in self.path:
                        web.cut -= 1
                        half = 0 if web.cut % 2 else len(data) // 2
                        data, self.close_connection = data[:half], True
                    self.wfile.write(data)
                except ConnectionError:
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.port = self._server.server_address[1]
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'' if tls is None else 's'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """End it, and wait until every connection is closed; may be called again."""
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
