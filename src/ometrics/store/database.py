# SPDX-License-Identifier: MIT
"""Connections to SQLite and PostgreSQL, and what goes wrong with them in plain words.

SQLite is opened anew for each transaction: it costs 0.2 ms, nothing is open between two
writes, and a file that was deleted or replaced is noticed. A write begins with `BEGIN
IMMEDIATE`, as a lock that is asked for later may be refused at once whatever the
timeout.

SQLite 3.7.0 to 3.51.2 can corrupt a file in WAL mode that several processes write at
the same instant (fixed in 3.51.3, 3.50.7 and 3.44.6). Such a version, and one whose
distribution may have patched it without a new number, gets the rollback journal with
full synchronisation, which has no such fault.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.pool import NullPool

from ometrics.store.errors import StoreBusyError, StoreError

_LOG: Final = logging.getLogger("ometrics.store")

# How long a transaction waits for another process's, in seconds.
BUSY_TIMEOUT: Final = 30.0
_CONNECT_TIMEOUT: Final = 10

_NETWORK_FILE_SYSTEMS: Final = frozenset(
    ("9p", "afs", "beegfs", "ceph", "cifs", "fuse.sshfs", "gfs2", "glusterfs")
) | {"fuse.glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "virtiofs"}

_WAL_FIXED: Final = (3, 51, 3)
_WAL_FIXED_BACKPORTS: Final = ((3, 50, 7), (3, 44, 6))
_WAL_EXISTS_SINCE: Final = (3, 7, 0)


_NO_WAL: Final = (
    f"SQLite {sqlite3.sqlite_version} can corrupt a file in WAL mode that several"
    " processes write (fixed in 3.51.3): stores have the rollback journal, which is"
    " somewhat slower"
)
_said: Final[set[str]] = set()


def _say_once(text: str) -> None:
    """Log what a person may want to know, once in the life of the process."""
    if text not in _said:
        _said.add(text)
        _LOG.info(text)


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether several processes may write a WAL file with this version of SQLite."""
    return (
        version >= _WAL_FIXED
        or version < _WAL_EXISTS_SINCE
        or any(
            version[:2] == fixed[:2] and version >= fixed
            for fixed in _WAL_FIXED_BACKPORTS
        )
    )


class Database:
    """
    Where a store's rows are.

    Args:
        where: A path, or an SQLAlchemy URL of `sqlite` or `postgresql`.
        create: Whether a missing SQLite file is made.

    Raises:
        ImportError: SQLAlchemy or psycopg is not installed: the message names the
            extra.
        StoreError: It cannot be used; the message says why.

    Thread-safety:
        Every method, from any thread. A forked child connects anew.
    """

    def __init__(self, where: str | os.PathLike[str], *, create: bool = True) -> None:
        self.url = _url_of(where)
        self._raw: set[Any] = set()
        self.path: Path | None = None
        if self.url.get_backend_name() == "sqlite":
            path = _path_of(self.url)
            self.path = path
            self.place = str(path)
            self.wal = wal_is_safe(sqlite3.sqlite_version_info)
            _check_file(path, create=create)
            if not self.wal:
                _say_once(_NO_WAL)
        else:
            self.place = self.url.render_as_string(hide_password=True)
        self._timeout = threading.local()
        self._engine = self._new_engine()
        _DATABASES.add(self)

    def _new_engine(self) -> Engine:
        if self.path is None:
            engine = _postgresql(self.url)
        else:
            engine = create_engine(
                "sqlite+pysqlite://", creator=self._open_file, poolclass=NullPool
            )
        event.listen(engine, "begin", _begin)
        event.listen(engine, "connect", self._opened)
        event.listen(engine, "close", self._closed)
        return engine

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """
        A connection that sees one state of the database.

        Raises:
            StoreError: It cannot be read.
        """
        options: dict[str, Any] = {}
        if self.dialect == "postgresql":
            options = {
                "isolation_level": "REPEATABLE READ",
                "postgresql_readonly": True,
            }
        with self._transaction(options) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, timeout: float = BUSY_TIMEOUT) -> Iterator[Connection]:
        """
        A transaction that is committed at the end, or not at all.

        Args:
            timeout: Seconds to wait for another process's transaction.

        Raises:
            StoreError: It cannot be written. Unless it is a `StoreBusyError`, whether
                it was committed may be unknown.
        """
        self._timeout.seconds = timeout
        try:
            with self._transaction({"ometrics_write": True}) as connection:
                yield connection
        finally:
            self._timeout.seconds = BUSY_TIMEOUT

    @contextlib.contextmanager
    def _transaction(self, options: dict[str, Any]) -> Iterator[Connection]:
        with (
            self._errors_explained(),
            self._engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection

    def maintain(self, *statements: str) -> None:
        """Run statements that no transaction may hold, such as `VACUUM`."""
        with self._errors_explained(), self._engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            if self.dialect == "postgresql":
                raw.autocommit = True  # type: ignore[union-attr]
            with contextlib.closing(raw.cursor()) as cursor:  # type: ignore[union-attr]
                for statement in statements:
                    cursor.execute(statement)
            connection.invalidate()

    def close(self) -> None:
        """Close what is open."""
        self._engine.dispose()

    # --- connections ---

    def _open_file(self) -> sqlite3.Connection:
        # mode=rw: a file that is gone is an error, not an empty store.
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=getattr(self._timeout, "seconds", BUSY_TIMEOUT),
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._choose_journal(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _choose_journal(self, connection: sqlite3.Connection) -> None:
        # Of a new file only. Two years take an eighth less than with pages of 4,096.
        connection.execute("PRAGMA page_size = 8192")
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        wanted = "wal" if self.wal else "delete"
        if mode != wanted and os.access(self.place, os.W_OK):
            (mode,) = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
            if mode == "wal" and not self.wal:
                raise StoreError(
                    f"{self.place} is in WAL mode and another process has it open:"
                    f" SQLite {sqlite3.sqlite_version} may corrupt it (fixed in"
                    " 3.51.3). End the other process first, or upgrade SQLite"
                )
        sync = "NORMAL" if self.wal else "FULL"
        connection.execute(f"PRAGMA synchronous = {sync}")

    def _opened(self, raw: Any, _: object) -> None:
        self._raw.add(raw)

    def _closed(self, raw: Any, _: object) -> None:
        self._raw.discard(raw)

    def _forked(self) -> None:
        """
        Leave the parent's connections alone.

        To close one would roll back the parent's transaction, or end its session. They
        are kept for ever, as they would be closed when they are freed.
        """
        for raw in self._raw:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(raw))
        self._raw = set()
        self._engine = self._new_engine()  # whose locks nobody holds

    # --- errors ---

    @contextlib.contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            raise self._explained(error) from None
        except UnicodeDecodeError:  # of a name in a damaged file
            raise self._explained(ValueError("malformed text")) from None
        except OSError as error:
            raise StoreError(f"{self.place}: {error.strerror or error}") from None

    def _explained(self, error: Exception) -> StoreError:
        cause = getattr(error, "orig", None) or error
        said = str(cause).strip() or type(cause).__name__
        if self.url.password:
            said = said.replace(str(self.url.password), "***")
        if self.path is None:
            return _explained_postgresql(self.place, said, cause)
        return _explained_sqlite(self.path, said)


_DATABASES: Final[WeakSet[Database]] = WeakSet()


def _after_fork() -> None:
    for database in list(_DATABASES):
        database._forked()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _begin(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        write = "ometrics_write" in connection.get_execution_options()
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _url_of(where: str | os.PathLike[str]) -> URL:
    text = os.fspath(where)
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):
        raise StoreError(
            "the store's URL cannot be read; it looks like"
            " postgresql://user:password@host/database, special characters of the"
            " password as %XX"
        ) from None
    backend = url.get_backend_name()
    if backend == "postgres":
        url = url.set(drivername="postgresql")
    elif backend not in {"sqlite", "postgresql"}:
        raise StoreError(
            f"{url.render_as_string(hide_password=True)}: {backend!r} is no database"
            " that a store knows; name a file, sqlite:///FILE or postgresql://..."
        )
    return url


def place_of(where: str) -> str:
    """
    A store's place as it may be shown: without its password.

    Raises:
        StoreError: It is a URL that cannot be read.
    """
    if "://" not in where:
        return where
    return _url_of(where).render_as_string(hide_password=True)


def _path_of(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise StoreError("a store in memory would be lost: name a file")
    return Path(url.database).absolute()  # the program may change its directory


def _check_file(path: Path, *, create: bool) -> None:
    """Refuse what cannot become a store, before SQLite makes anything of it."""
    if path.is_dir():
        raise StoreError(f"{path} is a directory: name a file in it")
    if not path.parent.is_dir():
        raise StoreError(f"directory {path.parent} does not exist: make it first")
    system = file_system_of(path.parent)
    if system in _NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"{path} is on a network file system ({system}), where SQLite's locks are"
            " not reliable: name a local file, or use PostgreSQL"
        )
    if path.exists():
        if not path.is_file():
            raise StoreError(f"{path} is no regular file: name another one")
        return
    if not create:
        raise StoreError(f"{path} does not exist")
    try:
        # Of this user only, as SQLite's journals beside it will be.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(
            f"{path} cannot be made ({error.strerror}): name a file in a directory"
            " that this user may write"
        ) from None


def file_system_of(directory: Path, table: str = "/proc/self/mountinfo") -> str:
    """The type of a directory's file system; empty where the system does not say."""
    best, system = -1, ""
    with contextlib.suppress(OSError):
        where = str(directory.resolve())
        for line in Path(table).read_text(encoding="utf-8").splitlines():
            left, _, right = line.partition(" - ")
            point = left.split()[4].encode().decode("unicode_escape")
            inside = where == point or where.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= best:
                best, system = len(point), right.split()[0]
    return system


def _holders(path: Path) -> str:
    """Who has a lock on a file, as far as Linux says: ` (held by process 123)`."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        inode = path.stat().st_ino
        holders = set()
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            parts = line.replace("->", "").split()
            if int(parts[5].split(":")[2]) == inode and int(parts[4]) > 0:
                holders.add(int(parts[4]))
        holders.discard(os.getpid())
        if holders:
            return f" (held by process {', '.join(map(str, sorted(holders)))})"
    return ""


def _explained_sqlite(path: Path, said: str) -> StoreError:
    if "locked" in said:
        return StoreBusyError(
            f"{path}: {said}{_holders(path)}: another process is writing it; what is"
            " not written yet is kept and tried again"
        )
    if "unable to open" in said and not path.exists():
        said = "gone"
    for sign, advice in _SQLITE_ADVICE.items():
        if sign in said:
            return StoreError(f"{path}: {said}{_free(path, said)}: {advice}")
    return StoreError(f"{path}: {said}")


# What SQLite says -> what to do.
_SQLITE_ADVICE: Final = {
    "gone": "it was deleted or moved while in use. Put it back, or start again to begin"
    " a new one",
    "unable to open": "this user may not open it or write beside it",
    "full": "make room, or thin it with 'ometrics store thin'; what is not written yet"
    " is kept and tried again",
    "not a database": "it was not touched; name another file",
    "malformed": "the file is damaged. 'ometrics store check' says how much; the"
    " command .recover of sqlite3 saves what can be read",
    "readonly": "this user may not write the file and its directory; name another file,"
    " or change their permissions",
    "no such": "the file was replaced while in use; start again",
}


def _free(path: Path, said: str) -> str:
    if "full" not in said:
        return ""
    usage = os.statvfs(path.parent)
    return f" ({usage.f_bavail * usage.f_frsize:,} bytes free)"


def _postgresql(url: URL) -> Engine:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise ImportError(
            "a store in PostgreSQL needs psycopg:"
            " pip install 'ollama-metrics[postgresql]'"
        ) from None
    query = {
        "connect_timeout": str(_CONNECT_TIMEOUT),
        "application_name": "ometrics",
        # A server that is gone without a word is noticed within half a minute.
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": "30000",
    }
    merged = url.set(drivername="postgresql+psycopg").update_query_dict(
        {k: v for k, v in query.items() if k not in url.query}
    )
    return create_engine(
        merged,
        pool_size=1,
        max_overflow=4,
        pool_pre_ping=True,
        json_serializer=str,  # columns of JSON are given as text, as SQLite has it
    )


_SERIALIZATION: Final = frozenset({"40001", "40P01"})


def _explained_postgresql(place: str, said: str, cause: object) -> StoreError:
    state = getattr(cause, "sqlstate", None)
    first = said.splitlines()[0] if said else "no answer"
    where = f"{place}: {first}"
    if state in _SERIALIZATION or state == "55P03":
        return StoreBusyError(f"{where}: tried again")
    if state == "57014":
        return StoreError(f"{where}: the server's statement_timeout is too short")
    if "password" in said or "authentication" in said or "role" in said:
        return StoreError(
            f"{where}: check the user and the password in the URL, PGPASSWORD or"
            " ~/.pgpass"
        )
    if "SSL" in said:
        return StoreError(
            f"{where}: the URL asks for TLS (sslmode) and the server does not offer it"
        )
    if state is None and ("connect" in said or "closed" in said or "timeout" in said):
        return StoreError(f"{where}: is the server running and reachable?")
    return StoreError(where)
