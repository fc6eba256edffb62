# SPDX-License-Identifier: MIT
"""A listening socket that lets in at most 16 connections and nobody for long.

asyncio's servers have no such limits, but they accept from the socket that they are
given. So the limits are in `accept`: they hold before the TLS handshake as well, and
whatever server reads what comes in.

Each connection has one request. Until that is complete it *waits*, for 5 s at most, and
gives way to a newcomer when all places are taken, the oldest first: so half-open
connections, however many, never keep a scrape out. While it is *answered* it keeps its
place for 5 s; after that it too gives way, and after 30 s it ends.

A connection is ended by `shutdown`: the server beneath sees its end and closes it.

Thread safety: all but `abandon` run in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
import weakref
from contextlib import suppress
from typing import Any, Final

MAX_CONNECTIONS: Final = 16
#: Seconds from `accept` to the end of the request's headers.
HEADER_TIMEOUT_S: Final = 5.0
#: Seconds from there to the end of the answer; three of Prometheus' scrape timeouts.
ANSWER_TIMEOUT_S: Final = 30.0
#: Connections that the kernel keeps ready; the server empties that queue at once.
BACKLOG: Final = 128

#: As the socket module has it: address, port, and more for IPv6.
Address = tuple[Any, ...]
_Key = tuple[object, object]

_listening: weakref.WeakSet[Listener] = weakref.WeakSet()
_hooked: list[bool] = []


class _Connection:
    """One that was let in: its socket, what it does and since when (monotonic s)."""

    __slots__ = ("answered", "since", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.since = time.monotonic()
        self.answered = False

    @property
    def ended(self) -> bool:
        return self.sock.fileno() < 0

    def end(self) -> None:
        with suppress(OSError):  # it may be gone already
            self.sock.shutdown(socket.SHUT_RDWR)


class Listener(socket.socket):
    """
    Listens on one address.

    Attributes:
        turned_away: Connections refused, or ended before they had their answer.
    """

    def __init__(self, family: int, fileno: int) -> None:
        super().__init__(family, socket.SOCK_STREAM, fileno=fileno)
        self._places: dict[_Key, _Connection] = {}
        self.turned_away = 0
        _survive_forks(self)

    @classmethod
    def bind_to(cls, family: int, address: Address) -> Listener:
        """
        Listen there; `resolve` tells where that is.

        Raises:
            OSError: That address cannot be had; the message says what to do.
        """
        try:
            plain = socket.create_server(address, family=family, backlog=BACKLOG)
        except OSError as error:
            raise OSError(error.errno, _explain(error, address)) from error
        return cls(family, plain.detach())

    def accept(self) -> tuple[socket.socket, Any]:
        """
        Let in the next connection, at the cost of an older one if need be.

        Raises:
            ConnectionAbortedError: All places are taken; asyncio goes on.
        """
        sock, address = super().accept()
        if not self._make_room():
            self.turned_away += 1
            sock.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "all places are taken")
        connection = _Connection(sock)
        self._places[address[:2], sock.getsockname()[:2]] = connection
        asyncio.get_running_loop().call_later(
            HEADER_TIMEOUT_S, self._end_of_wait, connection
        )
        return sock, address

    def answering(self, client: object, server: object) -> None:
        """The request between these two addresses is complete: keep its place."""
        connection = self._places.get((client, server))
        if connection is not None:
            connection.answered = True
            connection.since = time.monotonic()
            asyncio.get_running_loop().call_later(
                ANSWER_TIMEOUT_S, self._turn_away, connection
            )

    def end_all(self, *, answered: bool) -> None:
        """End all that wait, or all that are being answered."""
        for connection in self._places.values():
            if connection.answered is answered:
                self._turn_away(connection)

    def close(self) -> None:
        """
        Stop listening; not for a forked child, which `abandon`s its copy.

        A child of a fork that ran no hooks has a copy, too. Shut down, the port is free
        although that copy stays open.
        """
        with suppress(OSError):  # not every system can do that to a listener
            self.shutdown(socket.SHUT_RDWR)
        super().close()

    def abandon(self) -> None:
        """Give up a forked child's copies of all sockets; the parent keeps its own."""
        super().close()
        for connection in self._places.values():
            connection.sock.close()

    def _make_room(self) -> bool:
        """Whether there is a place, made free if need be."""
        self._places = {
            key: connection
            for key, connection in self._places.items()
            if not connection.ended
        }
        if len(self._places) < MAX_CONNECTIONS:
            return True
        late = time.monotonic() - HEADER_TIMEOUT_S
        for answered in (False, True):  # oldest first: a dict keeps the order
            for key, connection in self._places.items():
                if connection.answered is answered and (
                    not answered or connection.since < late
                ):
                    del self._places[key]
                    self._turn_away(connection)
                    return True
        return False

    def _end_of_wait(self, connection: _Connection) -> None:
        if not connection.answered:
            self._turn_away(connection)

    def _turn_away(self, connection: _Connection) -> None:
        if not connection.ended:
            self.turned_away += 1
            connection.end()


def resolve(host: str, port: int) -> tuple[int, Address]:
    """
    Where to listen.

    Args:
        host: Address or name; of a name's addresses the first.
        port: 0 for a free one.

    Returns:
        Address family and socket address.

    Raises:
        OSError: No such address.
    """
    kind = socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise OSError(error.errno, f"host {host!r}: {error.strerror}") from error
    family, _, _, _, address = found[0]
    return family, address


def _survive_forks(listener: Listener) -> None:
    """Have a forked child give up its copy."""
    _listening.add(listener)
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked.append(True)  # there is no way to take a hook back
        os.register_at_fork(after_in_child=_give_up)


def _give_up() -> None:
    for listener in [*_listening]:
        listener.abandon()


def _explain(error: OSError, address: Address) -> str:
    where = f"port {address[1]} on {address[0]}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: choose another one, or port=0 for any free one"
    if error.errno == errno.EACCES:
        return f"{where} is not allowed to this user: choose one above 1023"
    return f"{where} cannot be had: {error.strerror}"
