"""The page of `unscene play`: `/` the page, `/stream` its pictures, `/status` its numbers.

Only this machine can open it. A viewer who is ready for a picture gets the newest one: slow viewers skip pictures, and
delay nobody.
Requests under another name than this machine's are refused: a web site whose name was changed to mean 127.0.0.1 (DNS
rebinding) would send its own.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Thread
from typing import Any, Protocol

from unscene.errors import RecipeError
from unscene.inference.newest import Newest

_HOST = "127.0.0.1"
_BACKLOG = 2**16  # bytes on their way to a viewer; more would be old pictures
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site shows the camera
    "X-Content-Type-Options": "nosniff",
}


class View(Protocol):
    """What is shown."""

    jpeg: Newest[bytes]

    def status(self) -> dict[str, Any]: ...


@contextmanager
def serving(view: View, title: str, port: int = 0) -> Iterator[str]:
    """Serve the page of a view from threads of their own, and yield its address. RecipeError: the port is taken."""
    try:
        server = _Server((_HOST, port), _Handler)
    except (OSError, OverflowError) as error:
        raise RecipeError(
            f"the page cannot be served at port {port} ({error}). Expected a free port from 1024 to 65535: name "
            "another one with --port, or leave it out."
        ) from error
    template = files("unscene.report").joinpath("live.html").read_text(encoding="utf-8")
    server.view, server.page = view, template.replace("TITLE", escape(title)).encode("utf-8", "replace")
    Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield f"http://{_HOST}:{server.server_port}"
    finally:
        view.jpeg.close()
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    view: View
    page: bytes

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a viewer who leaves is none
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds in which a viewer must take a picture
    server: _Server

    def do_GET(self) -> None:
        names = {f"{host}:{self.server.server_port}" for host in (_HOST, "localhost")}
        if self.headers.get("Host") not in names:
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"Open the address that the command printed.\n")
        elif self.path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
        elif self.path == "/status":
            self._answer(HTTPStatus.OK, "application/json", json.dumps(self.server.view.status()).encode())
        elif self.path == "/stream":
            with suppress(OSError):  # the viewer left
                self._stream()
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"There is only / here.\n")

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self._head(status, kind, {"Content-Length": str(len(content))})
        self.wfile.write(content)

    def _head(self, status: HTTPStatus, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers, **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self) -> None:
        """Every part ends with the boundary of the next one, since browsers show it then."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BACKLOG)
        self._head(HTTPStatus.OK, "multipart/x-mixed-replace; boundary=frame", {})
        self.wfile.write(b"--frame\r\n")
        number = 0
        while following := self.server.view.jpeg.after(number):
            number, jpeg = following
            length = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
            self.wfile.write(length + jpeg + b"\r\n--frame\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed."""
