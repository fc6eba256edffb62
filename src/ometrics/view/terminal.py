# SPDX-License-Identifier: MIT
"""Where the command writes: a console for a stream, and whether it may be animated."""

from __future__ import annotations

import errno
import os
from typing import Any, Final, TextIO, cast

from rich.console import Console

from ometrics.view.plots import TO_ASCII

PIPE_WIDTH: Final = 160  # columns where no terminal sets a limit: no table is cut

# What we draw, for encodings without it; names keep what they can.
_ASCII: Final = str.maketrans(
    TO_ASCII
    | {"·": "|", "–": "-", "…": "~", "◂": "<", "µ": "u", "─": "-", "│": "|"}
    | {"✓": "+", "✗": "x", "●": "*", "○": " ", "⠋": "|"}
)


def console_for(stream: TextIO) -> Console:
    """
    A console that suits a stream.

    rich heeds `NO_COLOR`, `FORCE_COLOR`, `TERM=dumb` and the terminal's width; to a
    pipe or a file it writes plain lines, as wide as `COLUMNS` says or as needed.
    """
    width = None
    is_terminal = stream.isatty()
    if not is_terminal:
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() and int(columns) else PIPE_WIDTH
    ascii_only = not (stream.encoding or "").lower().startswith("utf")
    if ascii_only or not is_terminal:
        stream = cast(
            "TextIO", _Plain(stream, ascii_only=ascii_only, strip=not is_terminal)
        )
    return _Console(
        file=stream, width=width, highlight=False, markup=False, emoji=False
    )


def can_animate(console: Console) -> bool:
    """Whether the stream is a terminal on which lines can be overwritten."""
    return console.file.isatty() and not console.is_dumb_terminal


class _Console(Console):
    """A console whose reader may go away: that is an error, and not the end."""

    def on_broken_pipe(self) -> None:
        # rich ends the process here, whatever else it was about to do.
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class _Plain:
    """
    A stream that gets what it can encode, and no blanks at the ends of lines.

    Args:
        stream: Where to write.
        ascii_only: Whether to draw with ASCII.
        strip: Whether to remove the blanks.
    """

    encoding = "utf-8"  # what rich may write; how lines look is decided here

    def __init__(self, stream: TextIO, *, ascii_only: bool, strip: bool) -> None:
        self._stream = stream
        self._ascii_only = ascii_only
        self._strip = strip

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._strip:
            text = "\n".join(line.rstrip(" ") for line in text.split("\n"))
        if self._ascii_only:
            encoding = self._stream.encoding or "ascii"
            plain = text.translate(_ASCII).encode(encoding, "backslashreplace")
            text = plain.decode(encoding)
        return self._stream.write(text)
