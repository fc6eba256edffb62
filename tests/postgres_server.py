# SPDX-License-Identifier: MIT
"""A real PostgreSQL server for tests, started as a user that may run one."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from ports import free_port

USER = "postgres"


def binaries() -> Path | None:
    """Where Debian or the search path has the server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


class PostgresServer:
    """A server of its own in a new directory, on loopback; `close` removes it."""

    def __init__(self) -> None:
        found = binaries()
        if found is None:
            pytest.skip("no PostgreSQL: apt-get install postgresql")
        self._bin = found
        self._user: str | None = None
        if os.getuid() == 0:  # the server refuses to run as root
            try:
                pwd.getpwnam(USER)
            except KeyError:
                pytest.skip("root, and there is no user 'postgres' to run PostgreSQL")
            self._user = USER
        self._home = tempfile.mkdtemp(prefix="ometrics-pg-")
        if self._user:
            shutil.chown(self._home, self._user)
        self._data = f"{self._home}/data"
        self.port = free_port()
        self._do("initdb", "-D", self._data, "-U", USER, "-A", "trust", "--no-sync")
        with Path(self._data, "postgresql.conf").open("a", encoding="utf-8") as conf:
            # Only a crash of the machine needs fsync.
            conf.write("shared_buffers = 16MB\nmax_connections = 60\n")
            conf.write("fsync = off\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _do(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._user,
            cwd=self._home,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *(str(self._bin / "postgres"), "-D", self._data, "-p", str(self.port)),
                *("-k", self._home, "-c", "listen_addresses=127.0.0.1"),
            ],
            user=self._user,
            cwd=self._home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.query("public", "SELECT 1")
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def require_password(self, user: str) -> None:
        """Ask this user for a password from now on."""
        path = Path(self._data, "pg_hba.conf")
        rules = path.read_text(encoding="utf-8")
        path.write_text(f"host all {user} all scram-sha-256\n{rules}", encoding="utf-8")
        self.query("public", "SELECT pg_reload_conf()")
        import psycopg

        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                psycopg.connect(self.url("public", user)).close()
            except psycopg.OperationalError:
                return
            time.sleep(0.01)
        raise TimeoutError("the server did not read its rules anew")

    def kill(self) -> None:
        """End the server and all its sessions at once, as a crash does."""
        assert self._process is not None
        # The sessions end by themselves when their parent is gone; SIGQUIT is quicker.
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def url(self, schema: str, login: str = USER) -> str:
        """Where a store can be made, in a schema of its own."""
        where = f"{login}@127.0.0.1:{self.port}/postgres"
        return f"postgresql://{where}?options=-csearch_path%3D{schema}"

    def query(self, schema: str, sql: str) -> list[tuple[object, ...]]:
        """Run a statement outside any transaction."""
        import psycopg

        with psycopg.connect(self.url(schema), autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []

    def close(self) -> None:
        """End it and remove its directory."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        with contextlib.suppress(OSError):
            shutil.rmtree(self._home)
