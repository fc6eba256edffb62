# SPDX-License-Identifier: MIT
"""The token and the certificates of an endpoint, read once when it starts."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path
from typing import NoReturn

File = str | os.PathLike[str]


def read_token(file: File) -> str:
    """
    The token in a file, without the line's end.

    Raises:
        PermissionError: Others than the owner may read or write the file.
        ValueError: It is empty or no regular file.
        OSError: It cannot be read.
    """
    with Path(file).open(encoding="utf-8") as opened:
        # The open file is judged, not its name: that could change in between.
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"token_file {os.fspath(file)!r} is not a regular file")
        # Windows keeps its rights elsewhere and reports 0666 for every file.
        if os.name == "posix" and status.st_mode & 0o077:
            raise PermissionError(
                f"token_file {os.fspath(file)!r} has mode"
                f" {stat.S_IMODE(status.st_mode):04o}: others can use it; chmod 600"
            )
        token = opened.read().strip()
    if not token:
        raise ValueError(f"token_file {os.fspath(file)!r} is empty")
    return token


def tls_context(
    cert: File | None, key: File | None, client_ca: File | None
) -> ssl.SSLContext | None:
    """
    How to speak TLS (1.2 or later); `None`: not at all.

    Args:
        cert: PEM file with the server's certificate and those above it.
        key: PEM file with its private key; `None`: it is in `cert`.
        client_ca: PEM file with the authorities of the clients' certificates, which
            are then required and verified; `None`: clients need none.

    Raises:
        ValueError: `key` or `client_ca` without `cert`; or the key has a password.
        OSError: A file cannot be read, or is not what it should be (`ssl.SSLError`).
    """
    if cert is None:
        if key is not None or client_ca is not None:
            raise ValueError("tls_key and tls_client_ca need tls_cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key, password=_refuse_password)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def _refuse_password() -> NoReturn:
    """Without this, OpenSSL would ask for it on the terminal and wait."""
    raise ValueError("the TLS key has a password: give one without, of mode 0600")
