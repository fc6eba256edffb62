# SPDX-License-Identifier: MIT
"""`ometrics top`: the agents of this machine, as `top` shows its processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from ometrics.cli.agents import Agents, Found
from ometrics.cli.arguments import UnreadableSourceError
from ometrics.cli.command import Command
from ometrics.cli.keyboard import Keyboard
from ometrics.view import agents as rows_of
from ometrics.view.agents import COLUMNS, GROUPINGS, Agent, Row
from ometrics.view.escape import harmless
from ometrics.view.fitted import Flow
from ometrics.view.terminal import can_animate, console_for
from ometrics.view.units import count, counted, percent

# Signals that end it, as they end any program; Ctrl-C is one of its keys.
ENDING: Final = (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
_GROUPS: Final = tuple(GROUPINGS)
_SORTS: Final = tuple(COLUMNS)
_MOST_TROUBLES: Final = 3

EXAMPLES: Final = (
    ("ometrics top", "all agents of this user that can be seen"),
    ("ometrics top /run/user/1000/ometrics/pool", "those of one directory"),
    ("ometrics top --once | sort -k3 -n", "a table, once"),
    ("ometrics top --json", "the same for programs"),
)
NOTES: Final = """
An agent is seen if its records are in a directory: by MetricsCollector(directory=...),
the variable OMETRICS_DIR or 'ometrics proxy --directory'. Without an argument, all
directories in OMETRICS_DIR and in $XDG_RUNTIME_DIR/ometrics (without that variable, in
ometrics-UID in the temporary directory) are looked at. Reading costs the agents
nothing: it takes no lock of theirs, and writes nothing that they have in memory.

Keys: q ends it, ? explains the others and the columns.
"""
HELP: Final = """
 p m b     a row for each process, model, or both
 < >       sort by the next column to the left or right
 r         sort the other way round
 /         show only rows with a text; Escape shows all
 up, down  scroll, also by page
 q         quit

 reqs      requests since the process began, errs failures
 run       requests in flight now, age that of the oldest
 /min      requests of the last minute
 p50, p95  time that half or 95% of those took at most
 tok/s     tokens a second of the servers' decoding
"""


@dataclass(frozen=True)
class View:
    """
    What is shown, and how; each key makes another one.

    Attributes:
        group: What has a row: one of `GROUPINGS`.
        sort: By which of the columns.
        largest_first: Whether from large to small.
        filter: What must be in a row's names.
        is_typing: Whether keys are the filter's.
        skip: How many rows are scrolled away.
        page: Rows that fit.
        shows_help: Whether the keys are explained.
        ends: Whether it is over.
    """

    group: str = _GROUPS[0]
    sort: str = "rate"
    largest_first: bool = True
    filter: str = ""
    is_typing: bool = False
    skip: int = 0
    page: int = 10
    shows_help: bool = False
    ends: bool = False

    def pressed(self, key: str) -> View:
        """The view after a key; the same if the key means nothing."""
        if self.is_typing:
            return self._typed(key)
        if key == "q":
            return replace(self, ends=True)
        if self.shows_help or key in {"?", "h"}:
            return replace(self, shows_help=not self.shows_help)
        scrolled = {"up": -1, "down": 1, "page up": -self.page, "page down": self.page}
        if key in scrolled:
            return replace(self, skip=max(self.skip + scrolled[key], 0))
        return replace(self, **self._change(key))

    def _change(self, key: str) -> dict[str, Any]:
        groups = {"b": _GROUPS[0], "p": _GROUPS[1], "m": _GROUPS[2]}
        steps = {"<": -1, "left": -1, ">": 1, "right": 1}
        if key in groups:
            return {"group": groups[key], "skip": 0}
        if key in steps:
            at = (_SORTS.index(self.sort) + steps[key]) % len(_SORTS)
            # Names read from A to Z.
            return {"sort": _SORTS[at], "largest_first": at > 1, "skip": 0}
        if key == "r":
            return {"largest_first": not self.largest_first, "skip": 0}
        if key == "/":
            return {"is_typing": True}
        return {"filter": "", "skip": 0} if key == "escape" else {}

    def _typed(self, key: str) -> View:
        if key == "enter":
            return replace(self, is_typing=False)
        if key == "escape":
            return replace(self, is_typing=False, filter="")
        if key == "backspace":
            return replace(self, filter=self.filter[:-1], skip=0)
        typed = key if len(key) == 1 else ""
        return replace(self, filter=self.filter + typed, skip=0)

    def rows(self, processes: Iterable[Agent]) -> list[Row]:
        """What is to be shown of the processes, in order."""
        rows = rows_of.matching(GROUPINGS[self.group](processes), self.filter)
        return rows_of.ordered(rows, self.sort, largest_first=self.largest_first)


class Screen:
    """
    What one look found, as it is shown.

    Args:
        found: By the look.
        view: What of it, and how.
        agents: Who looked.
        lines: Lines that there are; `None`: as many as needed.
    """

    def __init__(
        self, found: Found, view: View, agents: Agents, lines: int | None
    ) -> None:
        self.found = found
        self.view = view
        self.agents = agents
        self.lines = lines

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render for rich."""
        yield self._headline()
        if self.lines is not None:
            yield self._state()
        if self.view.shows_help:
            yield Text(HELP)
        elif not self.found.running and not self.found.ended:
            yield self._nothing()
        else:
            yield from self._table(options.max_width)
        for trouble in self.found.troubles[:_MOST_TROUBLES]:
            yield Text(harmless(trouble), "yellow")

    def _headline(self) -> Flow:
        found = self.found
        running = sum(
            call.in_flight
            for process in found.processes
            for model in process.now.models.values()
            for call in model.calls.values()
        )
        failed = counted(found.errors, "error")
        if found.requests:
            failed += f" ({percent(100 * found.errors / found.requests)})"
        noun = "process" if len(found.running) == 1 else "processes"
        parts = [
            Text("ometrics top", "bold green"),
            Text(f"{count(len(found.running))} {noun}"),
            Text(counted(found.requests, "request")),
            Text(failed, "red" if found.errors else ""),
            Text(f"{count(running)} in flight", "cyan" if running else ""),
        ]
        if found.ended:
            parts.insert(2, Text(f"{count(found.ended)} ended", "dim"))
        return Flow(parts)

    def _state(self) -> RenderableType:
        view = self.view
        if view.is_typing:
            return Text(f"show only: {harmless(view.filter)}_", "bold")
        parts = [f"by {view.group}", "? help", "q quit"]
        if view.filter:
            parts.insert(1, f"only {harmless(view.filter)!r}")
        if not self.agents.has_watched_a_minute:
            parts.append("times since the start, not yet of the last minute")
        return Flow(Text(part, "dim") for part in parts)

    def _nothing(self) -> Group:
        where = [f"    {harmless(str(place))}" for place in self.agents.places]
        directory = harmless(str(self.agents.places[0]))
        lines = ["", "no agents yet in", *where, ""]
        lines += ["An agent is seen when its records are in a directory there:", ""]
        lines += [f"    export OMETRICS_DIR={directory}/agents", ""]
        lines += ["before it starts, or MetricsCollector(directory=...) in it."]
        if self.lines is not None:
            lines += ["Still looking."]
        return Group(*(Text(line) for line in lines))

    def _table(self, width: int) -> RenderResult:
        rows = self.view.rows(self.found.processes)
        page = len(rows) if self.lines is None else self.view.page
        skip = max(min(self.view.skip, len(rows) - page), 0)
        shown = rows[skip : skip + page]
        if not rows:
            yield Text(
                "\nnothing has that in it" if self.view.filter else "\nnone runs"
            )
            return
        yield rows_of.table(shown, self.view.sort, width)
        if len(shown) < len(rows):
            last = skip + len(shown)
            yield Text(f"{skip + 1} to {last} of {count(len(rows))} rows", "dim")


#: Lines around the rows: the headline may take two, as may the state.
_FRAME: Final = 4 + 2 + 1 + _MOST_TROUBLES


class Top:
    """
    The table that updates in place until a key or a signal ends it.

    Args:
        agents: Whom to look at.
        console: On a terminal.
        interval: Seconds between two looks.
    """

    def __init__(self, agents: Agents, console: Console, interval: float) -> None:
        self._agents = agents
        self._console = console
        self._interval = interval
        self._view = View()
        self._live = self._new_live()

    def _new_live(self) -> Live:
        return Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def run(self) -> int:
        """Show it; the signal that ended it, 0 for a key."""
        terminal = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
        with Keyboard(terminal) as keyboard, _Shown(self):
            return self._work(keyboard)

    def show(self) -> None:
        """Take the screen."""
        self._live = self._new_live()
        self._live.start()

    def hide(self) -> None:
        """Give the screen back."""
        self._live.stop()

    def _work(self, keyboard: Keyboard) -> int:
        due = 0.0
        while True:
            if time.monotonic() >= due:
                found = self._agents.look()
                due = time.monotonic() + self._interval
            self._draw(found)
            keys, signals = keyboard.wait(due - time.monotonic())
            for key in keys:
                self._view = self._view.pressed(key)
            if self._view.ends or signal.SIGINT in signals:
                return 0
            for number in signals:
                if number in ENDING:
                    return number
                if number == getattr(signal, "SIGTSTP", None):
                    self._pause(keyboard)

    def _draw(self, found: Found) -> None:
        lines = self._console.height
        self._view = replace(self._view, page=max(lines - _FRAME, 1))
        self._live.update(Screen(found, self._view, self._agents, lines), refresh=True)

    def _pause(self, keyboard: Keyboard) -> None:
        """Stop, as Ctrl-Z asks, with the terminal as it was; go on afterwards."""
        self.hide()
        keyboard.give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        keyboard.take()
        self.show()


class _Shown:
    """The screen, taken and given back."""

    def __init__(self, top: Top) -> None:
        self._top = top

    def __enter__(self) -> None:
        self._top.show()

    def __exit__(self, *_: object) -> None:
        self._top.hide()


@click.command(cls=Command, examples=EXAMPLES, notes=NOTES)
@click.argument("directories", nargs=-1, type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Print one table and end, as to a pipe.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON, once.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    metavar="S",
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
def top(
    directories: tuple[Path, ...], *, once: bool, as_json: bool, interval: float
) -> int:
    """Watch the agents of this machine, or those of each DIRECTORY, at work."""
    agents = Agents(directories)
    console = console_for(sys.stdout)
    try:
        if as_json:
            click.echo(_document(_found_once(agents)))
            return 0
        if once or not can_animate(console):
            console.print(Screen(_found_once(agents), View(), agents, None))
            return 0
        number = Top(agents, console, interval).run()
    except OSError as error:
        raise UnreadableSourceError(harmless(str(error))) from None
    if number:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return 0


def _found_once(agents: Agents) -> Found:
    """
    What one look finds.

    Raises:
        UnreadableSourceError: Nothing of it can be read.
    """
    found = agents.look()
    if found.troubles and not found.running and not found.ended:
        raise UnreadableSourceError("\n".join(map(harmless, found.troubles)))
    return found


def _document(found: Found) -> str:
    """The processes and their models, as JSON."""
    import msgspec

    processes = [
        {
            "id": instance.id,
            "pid": instance.pid,
            "program": instance.program,
            "command": instance.command,
            "directory": str(directory),
            "started": instance.started,
            "last_heard": instance.last_heard,
            "seconds": process.seconds,
            "models": [_model(row) for row in rows_of.by_both([process]) if row.model],
        }
        for instance, directory, process in found.running
    ]
    document = {
        "processes": processes,
        "ended": found.ended,
        "requests": found.requests,
        "errors": found.errors,
        "troubles": found.troubles,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _model(row: Row) -> dict[str, object]:
    return {
        "model": row.model,
        "requests": row.requests,
        "errors": row.errors,
        "in_flight": row.in_flight,
        "oldest_in_flight_seconds": row.oldest,
        "requests_per_minute": row.rate,
        "p50_seconds": row.p50,
        "p95_seconds": row.p95,
        "tokens_per_second": row.speed,
    }
