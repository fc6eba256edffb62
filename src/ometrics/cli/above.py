# SPDX-License-Identifier: MIT
"""Standard streams of a program that shares its terminal with a live table.

rich can redirect them itself, but breaks the line at every flush: an answer printed
token by token would come out as a column. Here whole lines go above the table as they
are, and the line that is not yet whole is shown as the table's first.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import IO, Any, Final, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

LONGEST: Final = 4096  # characters of an unfinished line that are kept back


class Above:
    """
    A text stream whose lines appear above the live display of a console.

    Everything but writing is the stream's own.

    Args:
        stream: What it stands for, a terminal.
        console: Whose live display is on the same terminal.

    Thread-safety:
        Any thread and signal handlers; `_lock`, which is re-entrant, keeps lines whole.
    """

    def __init__(self, stream: IO[str], console: Console) -> None:
        self.stream = stream
        self._console: Console | None = console
        self._lock = threading.RLock()
        self.pending = ""

    def __getattr__(self, name: str) -> Any:
        """Whatever else a stream has."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Take text; its whole lines are printed. Returns its length in characters."""
        with self._lock:
            console = self._console
            if console is None:
                return self.stream.write(text)
            lines, _, rest = (self.pending + text).rpartition("\n")
            if len(rest) > LONGEST:
                lines, rest = f"{lines}\n{rest}" if lines else rest, ""
            self.pending = rest
            if lines or "\n" in text:
                console.print(Text.from_ansi(lines), soft_wrap=True)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream; a line that is not whole stays below."""
        self.stream.flush()

    def release(self) -> bool:
        """
        Write to the stream itself from now on, beginning with what is pending.

        Returns:
            Whether there was such an unfinished line.
        """
        with self._lock:
            self._console = None
            pending, self.pending = self.pending, ""
            self.stream.write(pending)
            self.stream.flush()
        return bool(pending)

    def abandon(self) -> None:
        """The same in a forked child, where what is pending is the parent's."""
        self._lock = threading.RLock()
        self._console = None
        self.pending = ""


class Redirection:
    """
    `sys.stdout` and `sys.stderr` above a live display, as far as they are terminals.

    Renders as the line that is being written.

    Args:
        console: Whose live display.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._streams: dict[str, Above] = {}

    def start(self) -> None:
        """Redirect them."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not stream.closed and stream.isatty():
                self._streams[name] = Above(stream, self._console)
                setattr(sys, name, cast("IO[str]", self._streams[name]))

    def stop(self) -> bool:
        """
        Undo it; what the program holds of ours writes straight through.

        Returns:
            Whether the cursor is left in an unfinished line.
        """
        unfinished = False
        for name, stream in self._streams.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.stream)
            unfinished |= stream.release()
        return unfinished

    def forget(self) -> None:
        """Undo it in a forked child: the display is its parent's."""
        for name, stream in self._streams.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.stream)
            stream.abandon()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render for rich."""
        del console
        for stream in self._streams.values():
            line = Text.from_ansi(stream.pending.rpartition("\r")[2])
            if line:
                yield line[-options.max_width :]
