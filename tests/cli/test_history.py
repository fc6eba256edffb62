# SPDX-License-Identifier: MIT
"""`ometrics history` and `ometrics store`: the past, readable at 60 columns."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cli_runs import ASK, call, environment

pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")

from ometrics import MetricsCollector
from ometrics.store import Store
from ometrics.store.rows import Window, microseconds
from ometrics.testing import ScriptedOllama

HOSTILE = "evil\x1b[2J\u202e'; drop table"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six hours of two models with an hour's gap and a restart."""
    path = tmp_path_factory.mktemp("history") / "metrics.db"
    now = datetime.now(timezone.utc)
    with Store(path) as store:
        for i in range(72):
            if 30 <= i < 42:
                continue
            mc = MetricsCollector()
            for n in range(1 + i % 7):
                mc.record_latency("llama3.2", 0.1 * (1 + n))
                mc.record_latency(HOSTILE, 0.3)
            mc.record_error("llama3.2", TimeoutError())
            start = now - timedelta(hours=6) + timedelta(minutes=5 * i)
            at = [microseconds(start + timedelta(minutes=m)) for m in (0, 5)]
            name = "before" if i < 30 else "after"
            store.write(name, i + 1, Window(at[0], at[1], mc.snapshot()))
    return path


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_history_fits(path: Path, columns: int) -> None:
    """The table, the plots, the gap and the restart, in any width."""
    done = call("history", path, env=environment(COLUMNS=str(columns)))

    assert 0 == done.returncode, done.stderr
    lines = done.stdout.splitlines()
    assert columns >= max(map(len, lines))
    for part in ("llama3.2", "requests a step", "latency p95", "nobody was counting"):
        assert part in done.stdout
    assert "2 processes began to count" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


def test_history_in_ascii(path: Path) -> None:
    """No character that the terminal lacks."""
    env = environment(PYTHONIOENCODING="ascii", COLUMNS="80")
    done = call("history", path, "--model", "llama3.2", env=env)

    assert 0 == done.returncode, done.stderr
    assert done.stdout.isascii()
    assert "latency p99" in done.stdout


def test_history_as_json_and_csv(path: Path) -> None:
    """A row for each step and model, with the same numbers in both."""
    arguments = ("history", path, "--since", "6h", "--step", "1h")
    rows = [json.loads(r) for r in call(*arguments, "--json").stdout.splitlines()]
    table = list(csv.DictReader(io.StringIO(call(*arguments, "--csv").stdout)))

    assert len(rows) == len(table)
    assert sum(r["requests"] for r in rows) == sum(int(r["requests"]) for r in table)
    assert 60 == sum(r["failed"] for r in rows)
    assert {"llama3.2", HOSTILE} == {r["model"] for r in rows}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.db"], "nowhere.db does not exist"),
        (["--since", "soon"], "'soon' is no time such as"),
        (["--step", "often"], "'often' is not a length"),
        (["--since", "1h", "--until", "2h"], "is before"),
        (["--json", "--csv"], "choose one"),
    ],
)
def test_wrong_usage_is_said(path: Path, arguments: list[str], message: str) -> None:
    """Exit code 2, one message, no traceback."""
    where = [] if arguments[0].endswith(".db") else [path]
    done = call("history", *where, *arguments, cwd=path.parent)

    assert 2 == done.returncode
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_history_of_nothing(path: Path) -> None:
    """A time without records, and a model without any, say so."""
    done = call("history", path, "--since", "2020-01-01", "--until", "2020-01-02")
    assert "nothing was recorded" in done.stdout
    done = call("history", path, "--model", "gpt")
    assert "nothing of gpt was recorded" in done.stdout


def test_stores_are_files_for_other_commands(path: Path) -> None:
    """`show`, `diff` and `check` read the past as they read an export."""
    assert "llama3.2" in call("show", path).stdout
    assert "llama3.2" in call("diff", f"{path}@3h", path).stdout
    assert 1 == call("check", path, "-e", "errors == 0").returncode
    done = call("show", f"{path}@whenever")
    assert (2, True) == (done.returncode, "'whenever' is no time" in done.stderr)


@pytest.mark.parametrize("time", ["", "@now", "@today"])
@pytest.mark.parametrize(
    "command",
    [
        ("show",),
        ("doctor",),
        ("check", "-e", "latency.p95 < 1000s"),
        ("rules", "test", "default"),
    ],
)
def test_every_command_that_reads_takes_a_store(
    path: Path, command: tuple[str, ...], time: str
) -> None:
    """And what it was at a time; none of them writes to it."""
    before = path.read_bytes()
    done = call(*command, f"{path}{time}")

    assert "Traceback" not in done.stderr
    assert done.returncode in {0, 1}
    assert before == path.read_bytes()


@pytest.mark.parametrize("ending", ["", "import os, signal; os.kill(os.getpid(), 15)"])
def test_run_keeps_history(tmp_path: Path, ending: str) -> None:
    """A program's calls are in the store, also when a signal ends it; twice adds up."""
    script = tmp_path / "agent.py"
    script.write_text(ASK + ending, encoding="utf-8")
    store = tmp_path / "metrics.db"
    with ScriptedOllama() as server:
        for _ in range(2):
            call("run", "--store", store, script, env=environment(server))
    with Store(store) as there:
        assert 2 == there.snapshot().total_requests
        assert 2 == len(there.starts("1h"))


def test_run_with_a_wrong_store_is_said(tmp_path: Path) -> None:
    """Exit code 2 before the program runs."""
    script = tmp_path / "agent.py"
    script.write_text("print('ran')", encoding="utf-8")
    done = call("run", "--store", "mysql://host/db", script)

    assert (2, "") == (done.returncode, done.stdout)
    assert "'mysql' is no database that a store knows" in done.stderr


def test_the_store_commands(path: Path, tmp_path: Path) -> None:
    """From info to a copy that is read back the same."""
    assert "60 as written" in call("store", "info", path).stdout
    assert "sound\n" == call("store", "check", path).stdout
    export = tmp_path / "export.jsonl"
    for arguments in (
        ("export", path, export),
        ("import", export, tmp_path / "one.db"),
        ("migrate", tmp_path / "one.db", tmp_path / "two.db"),
        ("thin", tmp_path / "two.db", "--vacuum"),
        ("forget", tmp_path / "two.db", "--model", "llama3.2", "--yes"),
    ):
        done = call("store", *arguments)
        assert (0, "") == (done.returncode, done.stderr)
    assert "llama3.2" not in call("show", tmp_path / "two.db").stdout
    assert b"llama3.2" not in (tmp_path / "two.db").read_bytes()
    done = call("store", "export", path, export)
    assert (2, True) == (done.returncode, "File exists" in done.stderr)


def test_damage_makes_check_fail(path: Path, tmp_path: Path) -> None:
    """Exit code 1, for scripts."""
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute(
            "UPDATE model_windows SET histograms = X'0102030405060708'"
            " WHERE id < 2 << 24"
        )
        connection.commit()
    done = call("store", "check", copy)

    assert 1 == done.returncode
    assert "model 'llama3.2' in window 1: checksum does not match" in done.stdout
    assert "damaged rows are left out" in call("history", copy).stdout
