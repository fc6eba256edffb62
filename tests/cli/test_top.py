# SPDX-License-Identifier: MIT
"""`ometrics top`: agents that run, seen from outside in a real terminal."""

from __future__ import annotations

import json
import os
import signal
import termios
from pathlib import Path

import pytest
from cli_runs import OMETRICS, call, environment

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")
pytest.importorskip("pyte", reason="needs a terminal emulator")
if os.name == "nt":
    pytest.skip("needs pseudo-terminals", allow_module_level=True)

from hypothesis import given
from hypothesis import strategies as st
from pseudo_terminal import Terminal
from told_agents import CHAT, agent

from ometrics import MetricsCollector, attach
from ometrics.cli.agents import MINUTE, Agents
from ometrics.cli.keyboard import keys_of
from ometrics.cli.top import HELP, View
from ometrics.view.agents import COLUMNS, GROUPINGS, by_model, by_process, ordered

pytestmark = pytest.mark.fork


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """The usual place of directories."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    return tmp_path / "runtime" / "ometrics"


@pytest.fixture
def env(runtime: Path) -> dict[str, str]:
    """An environment in which that is the place."""
    env = environment(XDG_RUNTIME_DIR=str(runtime.parent))
    env.pop("OMETRICS_DIR", None)
    return env


def top(env: dict[str, str], *options: str, **size: int) -> Terminal:
    """The command in a terminal."""
    return Terminal([*OMETRICS, "top", "--interval", "0.2", *options], env, **size)


def test_agents_come_and_go(runtime: Path, env: dict[str, str]) -> None:
    """It waits for agents, finds them wherever, sees a killed one's counts stay."""
    terminal = top(env)
    terminal.wait_for("no agents yet", str(runtime), "Still looking", "OMETRICS_DIR")
    with agent(runtime / "pool") as first:
        first.do(CHAT.format("llama3.2"))
        terminal.wait_for(
            "1 process", "1 request ", f"{first.pid} agent.py", "llama3.2"
        )
        with agent(runtime / "other" / "deep", "worker.py") as second:
            second.do("mc.record_error('qwen3', 'TIMEOUT')")
            second.do("c = mc.start_call('qwen3')")
            screen = terminal.wait_for(
                "2 processes", "2 requests", "1 error (50.0%)", "1 in flight", "qwen3"
            )

            assert f"{second.pid} worker.py" in screen
        terminal.wait_for("1 process ", "1 ended", "2 requests", "0 in flight")
    terminal.press(b"q")

    assert 0 == terminal.finish()
    assert terminal.cursor_is_visible
    terminal.close()


def test_keys(runtime: Path, env: dict[str, str]) -> None:
    """Grouped, sorted, filtered and explained by keys."""
    with agent(runtime / "pool") as one, agent(runtime / "pool", "b.py") as other:
        for name in ("alpha", "beta"):
            one.do(CHAT.format(name))
        other.do(CHAT.format("beta"))
        terminal = top(env)
        terminal.wait_for("alpha", "beta", "/min*", "by process and model", "? help")
        terminal.press(b"p")
        terminal.wait_for("by process ·", "2 models")
        terminal.press(b"m")
        screen = terminal.wait_for("by model ·", "2 processes", "alpha")

        assert 1 == screen.count("beta")
        terminal.press(b"/alp")
        terminal.wait_for("show only: alp_")
        terminal.press(b"\r")
        screen = terminal.wait_for("only 'alp'")

        assert "beta" not in screen
        terminal.press(b"\x1b")
        terminal.wait_for("beta")
        terminal.press(b"\x1b[C")
        terminal.wait_for("p50*")
        terminal.press(b"<<<")
        terminal.wait_for("run*")
        terminal.press(b"?")
        terminal.wait_for("sort the other way round", "tokens a second")
        terminal.press(b"?qx")

        assert 0 == terminal.finish()
        terminal.close()


@pytest.mark.parametrize("columns", [60, 80])
def test_it_fits(columns: int, runtime: Path, env: dict[str, str]) -> None:
    """The age of calls in flight and a percentile are seen in a narrow terminal too."""
    with agent(runtime / "pool", "a_program_of_a_long_name.py") as one:
        one.do(CHAT.format("qwen3-coder:30b-a3b-q4_K_M"))
        one.do("c = mc.start_call('qwen3-coder:30b-a3b-q4_K_M')")
        terminal = top(env | {"NO_COLOR": "1"}, columns=columns, lines=12)
        screen = terminal.wait_for("1 in flight", "errs", "run", "age", "p95", "? help")

        assert 1 == screen.count("qwen3")
        assert b"\x1b[31m" not in terminal.raw
        terminal.press(b"q")
        terminal.finish()
        terminal.close()


def test_many_rows_scroll(runtime: Path, env: dict[str, str]) -> None:
    """What does not fit is a key away."""
    with agent(runtime / "pool") as one:
        one.do("[mc.record_latency(f'm{i:02}', 0.1) for i in range(50)]")
        terminal = top(env, lines=20)
        terminal.wait_for("m00", "1 to 10 of 50 rows")
        terminal.press(b"\x1b[6~\x1b[B")
        terminal.wait_for("12 to 21 of 50 rows")
        terminal.press(b"q")
        terminal.finish()
        terminal.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_the_terminal(
    number: signal.Signals, env: dict[str, str]
) -> None:
    """
    However it ends, keys are seen again and the cursor is there.

    Without the handler, a terminal stayed without echo.
    """
    terminal = top(env)
    before = termios.tcgetattr(terminal._master)
    terminal.wait_for("Still looking")

    assert before != termios.tcgetattr(terminal._master)
    os.kill(terminal.pid, number)

    assert (0 if number == signal.SIGINT else -number) == terminal.finish()
    assert before == termios.tcgetattr(terminal._master)
    assert terminal.cursor_is_visible
    assert terminal.raw.endswith(b"\x1b[?25h\x1b[?1049l") or (
        terminal.raw.count(b"\x1b[?1049l") == 1
    )
    terminal.close()


def test_it_can_be_stopped(env: dict[str, str]) -> None:
    """Ctrl-Z gives the terminal back; it goes on where it was."""
    terminal = top(env)
    before = termios.tcgetattr(terminal._master)
    terminal.wait_for("Still looking")
    terminal.press(b"\x1a")
    _, status = os.waitpid(terminal.pid, os.WUNTRACED)

    assert os.WIFSTOPPED(status)
    assert before == termios.tcgetattr(terminal._master)
    os.kill(terminal.pid, signal.SIGCONT)
    terminal.press(b"?")
    terminal.wait_for("scroll")
    terminal.press(b"qq")

    assert 0 == terminal.finish()
    terminal.close()


def test_once_and_json(runtime: Path, env: dict[str, str]) -> None:
    """The same numbers as a table and for programs, of one directory or all."""
    with agent(runtime / "pool") as one:
        one.do(CHAT.format("llama3.2"))
        one.do("c = mc.start_call('llama3.2')")
        shown = call("top", "--once", str(runtime / "pool"), env=env)
        document = json.loads(call("top", "--json", env=env).stdout)

    assert (0, "") == (shown.returncode, shown.stderr)
    assert f"{one.pid} agent.py" in shown.stdout
    assert "40" == shown.stdout.split()[-1]
    (process,) = document["processes"]
    (model,) = process["models"]
    assert (one.pid, "agent.py", 1) == (
        process["pid"],
        process["program"],
        document["requests"],
    )
    assert ("llama3.2", 1, 0, 1, 40) == tuple(
        model[key]
        for key in ("model", "requests", "errors", "in_flight", "tokens_per_second")
    )
    assert model["oldest_in_flight_seconds"] > 0


def test_what_cannot_be_read(env: dict[str, str], tmp_path: Path) -> None:
    """A directory that is named and not there is an error; none at all is none."""
    missing = call("top", "--once", str(tmp_path / "nowhere"), env=env)
    none = call("top", "--once", env=env)

    assert (2, 0) == (missing.returncode, none.returncode)
    assert "nowhere" in missing.stderr
    assert "no agents yet" in none.stdout
    assert {
        "processes": [],
        "ended": 0,
        "requests": 0,
        "errors": 0,
        "troubles": [],
    } == (json.loads(call("top", "--json", env=env).stdout))


class Clock:
    """Seconds that pass when they are told to."""

    now = 1000.0

    def __call__(self) -> float:
        """What it is."""
        return self.now


def test_the_last_minute(tmp_path: Path) -> None:
    """What was counted before is in the requests, and in no rate or percentile."""
    directory, clock = tmp_path / "agents", Clock()
    mc = MetricsCollector(directory=directory)
    agents = Agents([directory], clock)
    mc.record_latencies("m", [5.0] * 10)
    (row,) = by_process(agents.look().processes)

    assert (10, 5.0) == (row.requests, pytest.approx(row.p50, rel=0.011))
    for _ in range(30):
        clock.now += MINUTE / 20
        agents.look()
    assert agents.has_watched_a_minute
    mc.record_latency("m", 0.1)
    clock.now += 1
    (row,) = by_process(agents.look().processes)

    assert 11 == row.requests
    assert (0.1, 0.1) == pytest.approx((row.p50, row.p95), rel=0.011)
    assert 60 / 66 <= row.rate <= 1
    mc.reset_metrics()
    mc.record_latency("m", 3.0)
    (row,) = by_process(agents.look().processes)

    assert (1, 3.0) == (row.requests, pytest.approx(row.p50, rel=0.011))


def test_rows_add_up(tmp_path: Path) -> None:
    """However rows are grouped, requests are those of the directory."""
    collectors = [MetricsCollector(directory=tmp_path / "agents") for _ in range(3)]
    for i, mc in enumerate(collectors):
        for model in "abc"[: i + 1]:
            mc.record_latencies(model, [0.1 * (i + 1)] * 4)
            mc.record_error(model, "BROKEN")
    processes = Agents([tmp_path / "agents"]).look().processes
    snapshot = attach(tmp_path / "agents").snapshot()

    for group in GROUPINGS.values():
        rows = group(processes)
        assert (snapshot.total_requests, snapshot.total_errors) == (
            sum(row.requests for row in rows),
            sum(row.errors for row in rows),
        )
    models = {row.model: row for row in by_model(processes)}
    assert {name: m.latency_p95 for name, m in snapshot.models.items()} == {
        name: row.p95 for name, row in models.items()
    }
    for column in COLUMNS:
        up = ordered(models.values(), column, largest_first=False)
        values = [getattr(row, column) for row in up]
        known = [value for value in values if value is not None]
        assert sorted(known) == values[: len(known)]


@given(st.text(alphabet="\x1b[OABCD56~;q/ré\r\x7f1", max_size=20))
def test_any_bytes_are_keys_or_none(text: str) -> None:
    """No sequence, cut or unknown, is an error or acts as a letter in it."""
    view = View()
    for key in keys_of(text):
        view = view.pressed(key)

    assert ["up", "q"] == keys_of("\x1b[A\x1b[1;5Xq")
    assert view.sort in COLUMNS


def test_the_help_names_every_column() -> None:
    """And fits."""
    for column in COLUMNS.values():
        if column.title not in {"process", "model"}:
            assert column.title in HELP
    assert max(map(len, HELP.splitlines())) <= 60
