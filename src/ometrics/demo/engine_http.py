# SPDX-License-Identifier: MIT
"""HTTP for the embedded engine: connections that can be ended, JSON in and out.

Knows nothing of models; `engine_api.py` says what is answered.

Thread-safety: one handler, and so one thread, a connection. They share only the
listener's table of connections, whose single operations are atomic.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import socketserver
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

_log = logging.getLogger(__name__)

# Seconds between two looks at whether the listener should stop.
SHUTDOWN_POLL = 0.05
# Seconds to wait at the end for a request; it notices within one prefill batch.
JOIN_TIMEOUT = 10.0


class EngineError(Exception):
    """A request that is refused or failed: an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class CallerGoneError(Exception):
    """The client hung up, or the engine closes."""


class EngineListener(ThreadingHTTPServer):
    """Serves on a free port of 127.0.0.1 and can end every connection at once."""

    daemon_threads = True
    # socketserver's default of 5 resets connections of a burst of clients.
    request_queue_size = 128

    def __init__(self, handler: type[JsonHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._open: dict[threading.Thread, socket.socket] = {}
        self._thread = threading.Thread(
            target=self.serve_forever,
            args=(SHUTDOWN_POLL,),
            name="ometrics-engine",
            daemon=True,
        )
        self._thread.start()

    def server_bind(self) -> None:
        """Bind without http.server's reverse look-up, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle one connection in a thread of its own, known to `stop`."""
        thread = threading.Thread(
            target=self._serve,
            args=(request, client_address),
            name="ometrics-engine-client",
            daemon=True,
        )
        self._open[thread] = request
        thread.start()

    def handle_error(
        self,
        request: Any,  # noqa: ARG002 - socketserver's
        client_address: Any,  # noqa: ARG002
    ) -> None:
        """Log what went wrong in a handler; a client that hung up is not news."""
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("the embedded engine failed to answer a request")

    def stop(self) -> None:
        """End accepting, shut every connection, wait for their threads."""
        self.shutdown()
        self.server_close()
        self._thread.join(JOIN_TIMEOUT)
        still_open = list(self._open.items())
        for _, connection in still_open:
            # A handler that waits for a request wakes; one that answers sees `gone`.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread, _ in still_open:
            thread.join(JOIN_TIMEOUT)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            self._open.pop(threading.current_thread(), None)


class JsonHandler(BaseHTTPRequestHandler):
    """One connection: reads JSON bodies, writes JSON answers and chunked streams."""

    protocol_version = "HTTP/1.1"
    server_version = "ometrics-engine"
    # TCP_NODELAY: Nagle's algorithm held first chunks back for 40 ms.
    disable_nagle_algorithm = True
    # Whether a stream's status line is out; reset it at every request.
    streaming = False

    def log_message(self, *args: Any) -> None:
        """Keep quiet: the terminal is the user's."""

    def body(self) -> Json:
        """
        The request's JSON object.

        Raises:
            EngineError: 400, it is none.
        """
        try:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(max(0, length)))
        except ValueError as error:
            raise EngineError(400, f"invalid JSON: {error}") from None
        if not isinstance(body, dict):
            raise EngineError(400, "invalid JSON: the request must be an object")
        return body

    def gone(self) -> bool:
        """Whether the client has hung up; costs a system call or two."""
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def send(self, status: int, content: bytes, kind: str) -> None:
        """Send a complete answer; `kind` is its content type."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_json(self, status: int, answer: Json) -> None:
        """Send a complete answer in JSON."""
        self.send(status, _dumps(answer), "application/json; charset=utf-8")

    def send_line(self, line: Json) -> None:
        """Stream one line of newline-delimited JSON."""
        self.write_stream(_dumps(line) + b"\n", "application/x-ndjson")

    def send_event(self, event: Json) -> None:
        """Stream one server-sent event."""
        self.write_stream(b"data: " + _dumps(event) + b"\n\n", "text/event-stream")

    def write_stream(self, content: bytes, kind: str = "text/event-stream") -> None:
        """
        Write one HTTP chunk; the status goes out with the first.

        Raises:
            ClientGoneError: The connection is broken.
        """
        try:
            if not self.streaming:
                self.streaming = True
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
        except OSError:
            raise CallerGoneError from None

    def end_stream(self) -> None:
        """Write the chunk that ends a stream."""
        with suppress(OSError):
            self.wfile.write(b"0\r\n\r\n")


def _dumps(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
