# SPDX-License-Identifier: MIT
"""Who reads the numbers of a program under `ometrics run`, and reports at its end.

It may never change how the program ends: failures of its own are one line on standard
error.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TextIO

from ometrics import ollama
from ometrics.cli import alerts
from ometrics.cli.findings import problems
from ometrics.diagnosis import Findings, diagnose
from ometrics.export import json as json_export
from ometrics.instrumentation.unmeasured import notes
from ometrics.rules.load import RuleSet
from ometrics.rules.watch import Watch
from ometrics.snapshot import Snapshot
from ometrics.sources import Source
from ometrics.view import tables
from ometrics.view.escape import harmless
from ometrics.view.processes import ProcessRow, processes
from ometrics.view.terminal import console_for

_WRITE_EVERY: Final = 2.0  # seconds between two versions of the JSON file


class RunReporter:
    """
    Reads a source until its program has ended, then reports.

    Args:
        source: The program's numbers.
        json: Where to write the export, again and again; `None` for nowhere.

    Thread-safety:
        One thread.
    """

    def __init__(self, source: Source, *, json: Path | None) -> None:
        self._source = source
        self._json = json
        self._written = time.monotonic()
        self._file = own_stderr()
        self._console = console_for(self._file)
        self._rules: Watch | None = None
        self._closing: list[tuple[str, Callable[[], object]]] = []

    def serve(self, port: int) -> None:
        """
        Serve `/metrics` on loopback.

        Raises:
            SystemExit: It cannot; code 2, and the message says why.
        """
        from ometrics.serve import Endpoint

        try:
            numbers = [Findings(self._source)]
            endpoint = Endpoint.start(self._source, port=port, numbers=numbers)
        except ImportError as error:
            self.refuse(str(error))
        except OSError as error:
            self.refuse(
                f"cannot serve on port {port}: {error.strerror or error}; choose"
                " another one, or 0 for any that is free"
            )
        self._closing.append(("end the endpoint", endpoint.close))
        self.say(f"serving {endpoint.url}/metrics")

    def alert(self, rules: RuleSet) -> None:
        """Say when a rule is broken, and tell whom its file names."""
        self._rules = alerts.watch(self._source, rules, self._console)

    def poll(self) -> None:
        """Ask the server for its models meanwhile, for what is shown and said of it."""
        residency = ollama.residency()
        self._closing.append(("ask the server no more", residency.close))
        self._source = residency.beside(self._source)

    def keep(self, store: str) -> None:
        """
        Keep history.

        Raises:
            SystemExit: The store cannot be; code 2, and the message says why.
        """
        try:
            from ometrics.store import StoreError, Writer
        except ImportError as error:
            self.refuse(str(error))
        try:
            writer = Writer(store, self._source).start()
        except (ImportError, StoreError) as error:
            self.refuse(str(error))
        self._closing.append(("write the history", writer.close))

    def look(self) -> None:
        """Write the JSON if it is time: so a file is left whatever is killed."""
        now = time.monotonic()
        if self._json is not None and now - self._written >= _WRITE_EVERY:
            self._written = now
            with suppress(Exception):  # said at the end, if it is so then
                json_export.write(self._source.snapshot(), self._json)

    def finish(
        self,
        clients: Callable[[], Iterable[str]],
        members: Callable[[], Sequence[ProcessRow]] = tuple,
    ) -> None:
        """
        Report.

        Args:
            clients: Gives those that were imported and are not measured.
            members: Gives the processes, if they are known.
        """

        def report() -> None:
            snapshot = self._source.snapshot()
            # The file is there also if nobody reads the summary any more.
            self.attempt("print the summary", partial(self._print, snapshot, members))
            for note in notes(len(snapshot.models), clients()):
                self.say(note)
            self.attempt("write the JSON", partial(self._write, snapshot))

        self.attempt("tell of alerts", self._stop_rules)
        self.attempt("read its numbers", report)

    def _stop_rules(self) -> None:
        """Look a last time, so that a short program is alerted of as well."""
        if self._rules is not None:
            self._rules.step()
            self._rules.close(timeout=2.0)

    def _print(
        self, snapshot: Snapshot, members: Callable[[], Sequence[ProcessRow]]
    ) -> None:
        if sys.stderr is not None and not sys.stderr.closed:
            sys.stderr.flush()  # what the program said before comes before
        self._console.print(tables.report(snapshot), end="")
        rows = members()
        if len(rows) > 1 or any("signal" in one.end for one in rows):
            self._console.print(tables.spaced(processes(rows)), end="")
        for finding in problems(diagnose(snapshot)):
            self._console.print(finding)

    def _write(self, snapshot: Snapshot) -> None:
        if self._json is not None:
            json_export.write(snapshot, self._json)
            self.say(f"wrote {self._json}")

    def close(self) -> None:
        """Let go of everything."""
        while self._closing:
            self.attempt(*self._closing.pop())
        with suppress(OSError):  # what could not be said before cannot be now
            self._file.close()

    def attempt(self, what: str, step: Callable[[], object]) -> None:
        """Do something; a failure is said in a line."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the program's end is not ours
            self.say(f"cannot {what}: {error}")

    def say(self, text: str) -> None:
        """Say something in a line."""
        try:
            self._file.write(f"ometrics: {harmless(text)}\n")
            self._file.flush()
        except (OSError, ValueError):
            pass  # nobody listens any more

    def refuse(self, why: str) -> NoReturn:
        """
        Say why the program does not run.

        Raises:
            SystemExit: Always; code 2.
        """
        self.say(why)
        self.close()
        raise SystemExit(2)


def own_stderr() -> TextIO:
    """Standard error with a buffer of its own, whatever the program does to its own."""
    try:
        descriptor = os.dup(2)
    except OSError:  # closed, as by `2>&-`
        descriptor = os.open(os.devnull, os.O_WRONLY)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return os.fdopen(descriptor, "w", encoding=encoding, errors="backslashreplace")
