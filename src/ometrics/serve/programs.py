# SPDX-License-Identifier: MIT
"""Which program listens on a port, where that can be known."""

from __future__ import annotations

from contextlib import suppress


def program_at(port: int) -> str | None:
    """
    The program that listens on a port of this machine.

    Args:
        port: Of TCP.

    Returns:
        Such as `nginx (pid 123)`; `None` if this user may not know it, or psutil (the
        extra `resources`) is missing.
    """
    try:
        import psutil
    except ImportError:
        return None
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.pid:
                continue
            if connection.laddr[1:] == (port,):
                name = psutil.Process(connection.pid).name()
                return f"{name} (pid {connection.pid})"
    return None
