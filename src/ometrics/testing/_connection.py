"""
One client's connection: reads requests, plays scripts, byte by byte.

A thread owns a connection and alone reads, writes and closes its socket. The server's
`close()` only shuts the socket down, which ends whatever the thread waits for.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress

from ._answer import Answer
from ._request import Request
from .steps import (
    Body,
    Close,
    Delay,
    Hang,
    Piece,
    Raw,
    Reset,
    Script,
    Status,
    Step,
    as_step,
)

# A selector rounds its timeout up to whole milliseconds; the last two are slept.
_SLEPT_S = 0.002
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
# Closing with this linger drops what is unsent and sends a reset instead of a FIN.
_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class ClientGoneError(Exception):
    """The client closed or reset the connection before its answer was finished."""


class Connection:
    """
    The server's side of one connection.

    Args:
        sock: The accepted socket; the connection closes it in `close`.
        number: Its number, from 0.
        holding: Gives a `Hang` the socket that becomes readable when it is released.
    """

    def __init__(
        self,
        sock: socket.socket,
        number: int,
        holding: Callable[[], AbstractContextManager[socket.socket]],
    ) -> None:
        with suppress(OSError):  # some systems refuse it once the client has left
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._number = number
        self._holding = holding
        self._received = b""

    def shutdown(self) -> None:
        """End both directions; wakes the owning thread. Safe from any thread."""
        with suppress(OSError):  # the client was faster
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back."""
        self._sock.close()

    def read_request(self) -> Request | None:
        """Return the next request, or None when the client has no more of them."""
        try:
            return self._read_request()
        except ValueError:
            with suppress(ClientGoneError):
                self._write(_BAD_REQUEST)
        except ClientGoneError:
            pass
        return None

    def play(self, request: Request, script: Script) -> bool:
        """
        Answer a request; sets its `outcome` where the answer ended by the script.

        Returns:
            Whether the connection can serve another request.

        Raises:
            ClientGoneError: The client went away.
            Exception: What the script raised.
        """
        answer = Answer(self._write, request)
        try:
            pieces = script(request) if callable(script) else script
            return self._play(request, answer, pieces)
        except ClientGoneError:
            raise
        except Exception as error:
            if not answer.started:
                answer.start(Status(500, {"error": f"script failed: {error!r}"}))
            raise

    def _play(self, request: Request, answer: Answer, pieces: Iterable[Piece]) -> bool:
        """Do what `play` says, but for failures."""
        steps: Iterable[Step] = map(as_step, pieces)
        count = None
        if isinstance(pieces, Sequence):
            steps = list(steps)
            count = len(steps)
            answer.announce(steps)
        for number, step in enumerate(steps, 1):
            if isinstance(step, Body):
                answer.send(step, last=number == count)
            elif isinstance(step, Delay):
                self._wait(step.seconds)
            elif isinstance(step, Hang):
                with self._holding() as released:
                    self._wait(None, released)
            elif isinstance(step, Status):
                answer.start(step)
            elif isinstance(step, Raw):
                answer.send_raw(step.data)
            elif isinstance(step, Reset):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                request.outcome = "cut"
                return False
            elif isinstance(step, Close):
                request.outcome = "cut"
                return False
            else:
                raise TypeError(f"the server knows no step {step!r}")
        answer.finish()
        request.outcome = "complete"
        return answer.keep_alive

    def _read_request(self) -> Request:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, self._received = self._received.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        path, _, query = target.partition("?")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        if "transfer-encoding" in headers:
            body = self._read_chunks()
        else:
            body = self._read_exactly(int(headers.get("content-length", 0)))
        return Request(method, path, query, headers, body, self._number)

    def _read_chunks(self) -> bytes:
        chunks: list[bytes] = []
        while True:
            while b"\r\n" not in self._received:
                self._receive()
            size, self._received = self._received.split(b"\r\n", 1)
            chunk = self._read_exactly(int(size, 16) + 2)[:-2]
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)

    def _read_exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            self._receive()
        data, self._received = self._received[:size], self._received[size:]
        return data

    def _receive(self) -> None:
        try:
            data = self._sock.recv(65_536)
        except OSError as error:
            raise ClientGoneError from error
        if not data:
            raise ClientGoneError
        self._received += data

    def _write(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise ClientGoneError from error

    def _wait(self, seconds: float | None, wake: socket.socket | None = None) -> None:
        """Wait for the time or `wake`; what arrives early is kept for later."""
        end = None if seconds is None else time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            if wake is not None:
                selector.register(wake, selectors.EVENT_READ)
            while end is None or end - time.monotonic() > _SLEPT_S:
                timeout = None if end is None else end - time.monotonic() - _SLEPT_S
                for key, _ in selector.select(timeout):
                    if key.fileobj is wake:
                        return
                    self._receive()
        if end is not None:
            time.sleep(max(0.0, end - time.monotonic()))
