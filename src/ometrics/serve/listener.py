# SPDX-License-Identifier: MIT
"""A listening socket that answers 16 requests at once and waits for nobody long.

asyncio's servers have no such limits, but they accept from the socket that they are
given. So the limits are in `accept`: they hold before the TLS handshake as well, and
whatever server reads what comes in.

Each connection has one request. Until that is complete the connection *waits*, for 5 s
at most. The request is *answered* if fewer than 16 others are, or if one of those has
been read for over 5 s, which then ends; else it is *refused*: the server says 503, and
when to come again. An answer ends after 30 s.

64 connections are open at most. Above that, those refused and then those that wait give
way to newcomers, the oldest first: so half-open connections, however many, never keep a
scrape out.

A connection is ended by `shutdown`: the server beneath sees its end and closes it.

Thread safety: all but `abandon` run in the event loop's thread; `turned_away` may be
read from any.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import os
import socket
import time
import weakref
from contextlib import suppress
from typing import Any, Final, Literal

from ometrics.serve.programs import program_at

#: Requests that are answered at once.
MAX_ANSWERS: Final = 16
#: Connections that are open at once, whatever they do.
MAX_OPEN: Final = 64
#: Seconds from `accept` to the end of the request's headers.
HEADER_TIMEOUT_S: Final = 5.0
#: Seconds from there to the end of the answer; three of Prometheus' scrape timeouts.
ANSWER_TIMEOUT_S: Final = 30.0
#: Connections that the kernel keeps ready.
BACKLOG: Final = 128
#: Connections that the server takes from it before it looks at those that it has.
ACCEPTED_AT_ONCE: Final = 16

#: As the socket module has it: address, port, and more for IPv6.
Address = tuple[Any, ...]
_Key = tuple[object, object]

_listening: weakref.WeakSet[Listener] = weakref.WeakSet()
_hooked: list[bool] = []


#: Why a connection had no page: it got a 503; it was too slow to send its request or to
#: read its answer; it had to make room before it had sent one.
Reason = Literal["busy", "slow", "full"]


class _State(enum.Enum):
    """What a connection does."""

    WAITING = enum.auto()
    ANSWERED = enum.auto()
    REFUSED = enum.auto()
    ENDED = enum.auto()


class _Connection:
    """One that was let in: its socket, what it does and since when (monotonic s)."""

    __slots__ = ("since", "sock", "state")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.since = time.monotonic()
        self.state = _State.WAITING

    @property
    def ended(self) -> bool:
        return self.state is _State.ENDED or self.sock.fileno() < 0

    def end(self) -> None:
        self.state = _State.ENDED
        with suppress(OSError):  # it may be gone already
            self.sock.shutdown(socket.SHUT_RDWR)


class Listener(socket.socket):
    """
    Listens on one address.

    Attributes:
        turned_away: Connections that had no page, by `Reason`.
    """

    def __init__(self, family: int, fileno: int) -> None:
        super().__init__(family, socket.SOCK_STREAM, fileno=fileno)
        self._open: dict[_Key, _Connection] = {}
        self.turned_away: dict[Reason, int] = {"busy": 0, "slow": 0, "full": 0}
        _survive_forks(self)

    @property
    def answering(self) -> int:
        """Requests that are being answered."""
        return len(self._answered())

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
            raise OSError(error.errno, explain(error, address)) from error
        return cls(family, plain.detach())

    def listen(self, _: int = BACKLOG, /) -> None:
        """As `bind_to` did: the server's number is how many it accepts at once."""
        super().listen(BACKLOG)

    def accept(self) -> tuple[socket.socket, Any]:
        """
        Let in the next connection, at the cost of an older one if need be.

        Raises:
            ConnectionAbortedError: All that are open are being answered; asyncio goes
                on.
        """
        sock, address = super().accept()
        if not self._make_room():
            self.turned_away["full"] += 1
            sock.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "too many connections")
        connection = _Connection(sock)
        self._open[address[:2], sock.getsockname()[:2]] = connection
        asyncio.get_running_loop().call_later(
            HEADER_TIMEOUT_S, self._end_of_wait, connection
        )
        return sock, address

    def admit(self, client: object, server: object) -> bool:
        """
        Whether the request between these two addresses, now complete, is answered.

        Otherwise it is to be refused, with a 503.
        """
        connection = self._open.get((client, server))
        if connection is None:  # it had to make room meanwhile
            return False
        if not self._make_place():
            connection.state = _State.REFUSED
            self.turned_away["busy"] += 1
            return False
        connection.state = _State.ANSWERED
        connection.since = time.monotonic()
        asyncio.get_running_loop().call_later(
            ANSWER_TIMEOUT_S, self._end, connection, "slow"
        )
        return True

    def end_waiting(self) -> None:
        """End all that have no answer to come."""
        for connection in self._open.values():
            if connection.state is not _State.ANSWERED:
                self._end(connection, "full")

    def end_all(self) -> None:
        """End all."""
        for connection in self._open.values():
            self._end(connection, "slow")

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
        for connection in self._open.values():
            connection.sock.close()

    def _answered(self) -> list[_Connection]:
        return [
            connection
            for connection in [*self._open.values()]  # a copy: threads may ask
            if connection.state is _State.ANSWERED and not connection.ended
        ]

    def _make_room(self) -> bool:
        """Whether one more can be open, at the cost of the least worth if need be."""
        self._open = {
            key: connection
            for key, connection in self._open.items()
            if not connection.ended
        }
        if len(self._open) < MAX_OPEN:
            return True
        for state in (_State.REFUSED, _State.WAITING):
            for key, connection in self._open.items():  # oldest first
                if connection.state is state:
                    del self._open[key]
                    self._end(connection, "full")
                    return True
        return False

    def _make_place(self) -> bool:
        """Whether one more can be answered, at the cost of a slow reader if need be."""
        answered = self._answered()
        if len(answered) < MAX_ANSWERS:
            return True
        slowest = min(answered, key=lambda connection: connection.since)
        if time.monotonic() - slowest.since < HEADER_TIMEOUT_S:
            return False
        self._end(slowest, "slow")
        return True

    def _end_of_wait(self, connection: _Connection) -> None:
        if connection.state is not _State.ANSWERED:
            self._end(connection, "slow")

    def _end(self, connection: _Connection, reason: Reason) -> None:
        if not connection.ended:
            if connection.state is not _State.REFUSED:  # those were counted as busy
                self.turned_away[reason] += 1
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


def explain(error: OSError, address: Address) -> str:
    """
    Say in a sentence why an address cannot be had, and what to do.

    Args:
        error: What binding to it raised.
        address: Address and port.
    """
    where = f"port {address[1]} on {address[0]}"
    if error.errno == errno.EADDRINUSE:
        program = program_at(address[1])
        by = "" if program is None else f" by {program}"
        return f"{where} is in use{by}: choose another one, or 0 for any free one"
    if error.errno == errno.EACCES:
        return f"{where} is not allowed to this user: choose one above 1023"
    return f"{where} cannot be had: {error.strerror}"
