# SPDX-License-Identifier: MIT
"""The command in a pseudo-terminal: what a person sees, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest
from cli_runs import ASK, MODEL, OMETRICS, environment, export, load, snapshot

from ometrics.testing import ScriptedOllama

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")
pytest.importorskip("ollama", reason="the extra ollama is not installed")
pytest.importorskip("pyte", reason="needs a terminal emulator")
if os.name == "nt":
    pytest.skip("needs pseudo-terminals", allow_module_level=True)

from pseudo_terminal import PATIENCE, Terminal

pytestmark = pytest.mark.fork

# Asks three times, then shows what it has and waits for a key.
WAITING = ASK + "ask()\nask()\nprint('tok', end='', flush=True)\ninput()\nprint('en')\n"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that asks and then waits."""
    path = tmp_path / "program.py"
    path.write_text(WAITING)
    return path


def start(*args: str | Path, env: dict[str, str], **size: int) -> Terminal:
    """The command in a terminal."""
    return Terminal([*OMETRICS, *map(str, args)], env, **size)


def test_live_table_updates_in_place(server: ScriptedOllama, program: Path) -> None:
    """
    There is one table, the program's lines are above it, and a summary in the end.

    So is the line that the program has not finished.
    """
    terminal = start("run", "--live", program, env=environment(server))
    screen = terminal.wait_for("3 requests", "latency", MODEL, "p99")

    assert 1 == screen.count(MODEL)
    lines = [line for line in screen.splitlines() if line]
    assert ["Hello, world!", "tok"] == lines[:2]
    for column in ("requests", "errors", "cancelled", "in flight", "p50", "p95", "p99"):
        assert column in screen

    terminal.press(b"\n")

    assert 0 == terminal.finish()
    assert "token" in terminal.screen
    assert "in flight" not in terminal.screen
    assert 1 == terminal.seen.count("ometrics · ")
    assert 0 == terminal.seen.count("tok\n")
    assert terminal.cursor_is_visible
    terminal.close()


def test_live_table_has_all_processes(server: ScriptedOllama, tmp_path: Path) -> None:
    """A call of a child is seen while both run; so is the table of processes after."""
    program = tmp_path / "program.py"
    program.write_text(
        f"{ASK}\n"
        "import subprocess, sys\n"
        "if not sys.argv[1:]:\n"
        "    subprocess.run([sys.executable, __file__, 'child'])\n"
        "    input()\n"
    )
    terminal = start("run", "--live", program, env=environment(server))
    terminal.wait_for("2 requests", MODEL)
    terminal.press(b"\n")

    assert 0 == terminal.finish()
    assert 2 == terminal.seen.count("exit 0")
    terminal.close()


@pytest.mark.parametrize(
    ("number", "keys"), [(signal.SIGTERM, b""), (signal.SIGINT, b"\x03")]
)
def test_signals_leave_the_terminal_as_it_was(
    number: signal.Signals,
    keys: bytes,
    server: ScriptedOllama,
    program: Path,
    tmp_path: Path,
) -> None:
    """The process ends by the signal, after summary and JSON, with its cursor back."""
    out = tmp_path / "out.json"
    terminal = start("run", "--live", "--json", out, program, env=environment(server))
    terminal.wait_for("3 requests")
    if keys:
        terminal.press(keys)
    else:
        os.kill(terminal.pid, number)

    assert -number == terminal.finish()
    assert "wrote" in terminal.seen
    assert terminal.cursor_is_visible
    assert 3 == load(out).total_requests
    terminal.close()


def test_stdout_in_a_file_is_untouched(
    server: ScriptedOllama, program: Path, tmp_path: Path
) -> None:
    """With `> file` the live table is on the terminal, the bytes are the program's."""
    with (tmp_path / "stdout").open("wb") as file:
        terminal = Terminal(
            [*OMETRICS, "run", "--live", str(program)],
            environment(server),
            stdout=file.fileno(),
        )
        terminal.wait_for("3 requests")
        terminal.press(b"\n")

        assert 0 == terminal.finish()
    assert "Hello, world!\ntoken\n" == (tmp_path / "stdout").read_text()
    terminal.close()


def test_stderr_in_a_file_means_no_table(
    server: ScriptedOllama, program: Path, tmp_path: Path
) -> None:
    """With `2> file` there is nothing on the terminal but the program's own lines."""
    with (tmp_path / "stderr").open("wb") as file:
        terminal = Terminal(
            [*OMETRICS, "run", "--live", str(program)],
            environment(server),
            stderr=file.fileno(),
        )
        terminal.wait_for("tok")
        terminal.press(b"\n")

        assert 0 == terminal.finish()
    assert b"\x1b" not in terminal.raw
    assert "3 requests" in (tmp_path / "stderr").read_text()
    terminal.close()


def test_forked_children_have_no_table(server: ScriptedOllama, tmp_path: Path) -> None:
    """A child's streams are its own again; only the parent reports."""
    program = tmp_path / "program.py"
    program.write_text(
        ASK + "import os, pathlib, sys\nprint('half', end='')\npid = os.fork()\n"
        "kind = type(sys.stdout).__name__\n"
        "pathlib.Path('parent' if pid else 'child').write_text(kind)\n"
        "if pid: os.waitpid(pid, 0)\n"
    )
    env = environment(server)
    terminal = Terminal([*OMETRICS, "run", "--live", str(program)], env, cwd=tmp_path)

    assert 0 == terminal.finish()
    assert "TextIOWrapper" == (tmp_path / "child").read_text()
    assert "Above" == (tmp_path / "parent").read_text()
    assert 1 == terminal.seen.count("half")
    assert 1 == terminal.seen.count("ometrics · ")
    terminal.close()


@pytest.mark.parametrize("columns", [30, 60, 100])
def test_live_table_fits(columns: int, server: ScriptedOllama, program: Path) -> None:
    """A narrow terminal has fewer columns, and no row takes two lines."""
    env = environment(server)
    terminal = start("run", "--live", program, env=env, columns=columns)
    screen = terminal.wait_for("3 requests", "p50", MODEL)

    assert 1 == sum(MODEL in line for line in screen.splitlines())
    assert "p50" in screen
    assert ("tokens/s" in screen) == (columns > 30)
    terminal.press(b"\n")
    terminal.finish()
    terminal.close()


@pytest.mark.parametrize(
    ("variable", "coloured"), [("LANG", True), ("NO_COLOR", False)]
)
def test_no_color_is_respected(variable: str, coloured: bool, tmp_path: Path) -> None:
    """`NO_COLOR` leaves bold and dim, but no colour."""
    path = export(tmp_path / "a.json", snapshot(errors=2))
    terminal = start("show", path, env=environment(**{variable: "1"}))

    assert 0 == terminal.finish()
    assert coloured == (b"\x1b[32m" in terminal.raw or b"\x1b[31m" in terminal.raw)
    terminal.close()


def test_a_dumb_terminal_gets_plain_lines(
    server: ScriptedOllama, program: Path
) -> None:
    """`TERM=dumb` can not move a cursor: no table, no escapes."""
    env = environment(server, TERM="dumb")
    terminal = start("run", "--live", program, env=env)
    terminal.wait_for("tok")
    terminal.press(b"\n")

    assert 0 == terminal.finish()
    assert b"\x1b" not in terminal.raw
    assert "3 requests" in terminal.seen
    terminal.close()


def test_demo_is_watched(tmp_path: Path) -> None:
    """The agents are seen at work, then the summary; nothing is left of the table."""
    with ScriptedOllama(models=[MODEL]) as server:
        out = tmp_path / "demo.json"
        terminal = start("demo", "--tasks", "2", "--json", out, env=environment(server))
        for agent in ("planner", "worker 1", "worker 2", "reviewer", "intern"):
            terminal.wait_for(agent)

        assert 0 == terminal.finish()
    assert "worker 1" not in terminal.screen
    assert "share of time" in terminal.seen
    assert terminal.cursor_is_visible
    terminal.close()


def test_demo_ends_on_ctrl_c(tmp_path: Path) -> None:
    """What was measured until then is shown; the exit code is 130."""
    with ScriptedOllama(models=[MODEL]) as server:
        env = environment(server)
        out = tmp_path / "demo.json"
        terminal = start("demo", "--tasks", "2000", "--json", out, env=env)
        terminal.wait_for("planner")
        terminal.press(b"\x03")

        assert 130 == terminal.finish()
    assert f"ometrics show {out}" in terminal.seen
    terminal.close()


def test_live_table_of_a_proxy(server: ScriptedOllama) -> None:
    """Calls of any client are in the table while it runs, and then in the summary."""
    terminal = start(
        *("proxy", "--live", "--serve", "0", "--listen", "127.0.0.1:0"),
        *("--upstream", server.url),
        env=environment(),
    )
    screen = terminal.wait_for("OLLAMA_HOST=http", "0 requests", "latency")
    url = screen.partition("OLLAMA_HOST=")[2].split()[0]
    messages = [{"role": "user", "content": "Hi"}]
    body = json.dumps({"model": MODEL, "messages": messages}).encode()
    with urllib.request.urlopen(f"{url}/api/chat", body, timeout=PATIENCE) as answer:
        answer.read()
    terminal.wait_for("1 request", MODEL, "in flight", "p99")
    os.kill(terminal.pid, signal.SIGTERM)

    assert 0 == terminal.finish()
    assert MODEL in terminal.screen
    assert "in flight" not in terminal.screen
    assert terminal.cursor_is_visible
    terminal.close()
