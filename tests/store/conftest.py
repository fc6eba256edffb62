# SPDX-License-Identifier: MIT
"""Places for stores: a file, and a database of a real PostgreSQL server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")

from postgres_server import PostgresServer

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server that all tests share; those that kill it start it again."""
    pytest.importorskip("psycopg", reason="the extra 'postgresql' is not installed")
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def schema(postgres: PostgresServer) -> str:
    """The name of a new, empty schema."""
    name = f"store{next(_NUMBERS)}"
    postgres.query("public", f"CREATE SCHEMA {name}")
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be made: in a file, and in a real server."""
    if request.param == "sqlite":
        return str(tmp_path / "metrics.db")
    server = request.getfixturevalue("postgres")
    return server.url(request.getfixturevalue("schema"))
