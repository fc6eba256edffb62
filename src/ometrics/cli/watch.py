# SPDX-License-Identifier: MIT
"""What stands beside a program under `ometrics run`, and reports when the process ends.

The report comes after the program's own exit handlers and threads, or from a signal
handler. It may never change how the process ends: failures of its own are one line on
standard error.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, TextIO

from rich.live import Live
from rich.text import Text

from ometrics.cli.above import Redirection
from ometrics.collector import MetricsCollector
from ometrics.export import json as json_export
from ometrics.instrumentation.api import instrument
from ometrics.instrumentation.unmeasured import notes
from ometrics.rules import Alert
from ometrics.rules.load import RuleSet
from ometrics.rules.receivers import Receiver
from ometrics.rules.watch import Watch as RulesWatch
from ometrics.rules.words import sentence
from ometrics.view import tables
from ometrics.view.escape import harmless
from ometrics.view.live import live
from ometrics.view.terminal import can_animate, console_for

# Signals that end a program which does not handle them, without its exit handlers.
ENDING: Final = ("SIGTERM", "SIGHUP")


class Watch:
    """
    Measures the rest of this process.

    Args:
        collector: Where to record.
        json: Where to write the export at the end; `None` for nowhere.
        live: Whether to show the live table, if standard error is a terminal.

    Thread-safety:
        The main thread starts it and ends it.
    """

    def __init__(
        self, collector: MetricsCollector, *, json: Path | None, live: bool
    ) -> None:
        self.collector = collector
        self._json = json
        self._pid = os.getpid()
        self._ended = False
        self._file = _own_stderr()
        self._console = console_for(self._file)
        self._live: Live | None = None
        self._streams: Redirection | None = None
        self._rules: RulesWatch | None = None
        self._wants_live = live and can_animate(self._console)

    def serve(self, port: int) -> None:
        """
        Serve `/metrics` on loopback.

        Raises:
            SystemExit: It cannot; code 2, and the message says why.
        """
        from ometrics.serve import Endpoint

        try:
            endpoint = Endpoint.start(self.collector, port=port)
        except ImportError as error:
            self._refuse(str(error))
        except OSError as error:
            self._refuse(
                f"cannot serve on port {port}: {error.strerror or error}; choose"
                " another one, or 0 for any that is free"
            )
        self._say(f"serving {endpoint.url}/metrics")

    def alert(self, rules: RuleSet) -> None:
        """Say when a rule is broken, and tell whom its file names."""

        def say(alert: Alert) -> None:
            style = "bold red" if alert.state == "firing" else "green"
            line = f"ometrics: {alert.state} {sentence(alert)}"
            self._console.print(Text(line, style))

        told: list[Receiver | Callable[[Alert], object]] = [*rules.notify, say]
        self._rules = self.collector.watch(rules.rules, notify=told)

    def start(self) -> None:
        """Instrument the clients, and see to it that the end is noticed."""
        instrument(self.collector)
        # First registered is last called: after all exit handlers of the program.
        atexit.register(self.finish)
        for name in ENDING:
            number = getattr(signal, name, None)
            # What is ignored stays ignored, as under nohup.
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._on_signal)
        if self._wants_live:
            self._start_live()

    def _start_live(self) -> None:
        streams = Redirection(self._console)
        display = live(self.collector, self._console, above=streams)
        streams.start()
        display.start()
        self._live, self._streams = display, streams
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=streams.forget)

    def finish(self) -> None:
        """Report, once, and in the process that started only."""
        if self._ended:
            return
        self._ended = True
        if os.getpid() == self._pid:
            self._attempt("tell of alerts", self._stop_rules)
            self._attempt("end the live table", self._stop_live)
            self._attempt("print the summary", self._print_summary)
            if self._json is not None:
                self._attempt("write the JSON", self._write_json)
        self._attempt("write the history", self.collector.close)
        self._file.close()

    def _stop_rules(self) -> None:
        """Look a last time, so that a short program is alerted of as well."""
        if self._rules is not None:
            self._rules.step()
            self._rules.close(timeout=2.0)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
        if self._streams is not None and self._streams.stop():
            self._console.print()

    def _print_summary(self) -> None:
        if sys.stderr is not None and not sys.stderr.closed:
            sys.stderr.flush()  # what the program said before comes before
        snapshot = self.collector.snapshot()
        self._console.print(tables.report(snapshot), end="")
        for note in notes(len(snapshot.models)):
            self._say(note)

    def _write_json(self) -> None:
        if self._json is not None:
            json_export.write(self.collector.snapshot(), self._json)
            self._say(f"wrote {self._json}")

    def _attempt(self, what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the program's end is not ours
            self._say(f"cannot {what}: {error}")

    def _say(self, text: str) -> None:
        try:
            self._file.write(f"ometrics: {harmless(text)}\n")
            self._file.flush()
        except (OSError, ValueError):
            pass  # nobody listens any more

    def _refuse(self, why: str) -> NoReturn:
        self._say(why)
        self._file.close()
        raise SystemExit(2)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Report, then end as if this handler had never been."""
        del frame
        # First, so that a second signal ends a report that hangs.
        signal.signal(number, signal.SIG_DFL)
        try:
            self.finish()
        finally:
            os.kill(os.getpid(), number)


def _own_stderr() -> TextIO:
    """Standard error with a buffer of its own, whatever the program does to its own."""
    try:
        descriptor = os.dup(2)
    except OSError:  # closed, as by `2>&-`
        descriptor = os.open(os.devnull, os.O_WRONLY)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return os.fdopen(descriptor, "w", encoding=encoding, errors="backslashreplace")
