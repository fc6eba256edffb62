# SPDX-License-Identifier: MIT
"""Where the command writes: a console for a stream, and whether it may be animated."""

from __future__ import annotations

import os
from typing import Any, Final, TextIO, cast

from rich.console import Console

from ometrics.view.plots import EIGHTHS, LEVELS

PIPE_WIDTH: Final = 160  # columns where no terminal sets a limit: no table is cut

# What we draw, for encodings without it; names keep what they can.
_ASCII: Final = str.maketrans(
    dict.fromkeys(EIGHTHS.strip(), "#")
    | dict(zip(LEVELS, "_.-~=+*#", strict=True))
    | {"·": "|", "–": "-", "…": "~", "◂": "<", "µ": "u", "─": "-", "✓": "+", "✗": "x"}
    | {"●": "*", "○": " ", "⠋": "|"}
)


def console_for(stream: TextIO) -> Console:
    """
    A console that suits a stream.

    rich heeds `NO_COLOR`, `FORCE_COLOR`, `TERM=dumb` and the terminal's width; to a
    pipe or a file it writes plain lines, as wide as `COLUMNS` says or as needed.
    """
    width = None
    if not stream.isatty():
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() and int(columns) else PIPE_WIDTH
    if not (stream.encoding or "").lower().startswith("utf"):
        stream = cast("TextIO", _Ascii(stream))
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def can_animate(console: Console) -> bool:
    """Whether the stream is a terminal on which lines can be overwritten."""
    return console.file.isatty() and not console.is_dumb_terminal


class _Ascii:
    """A stream that gets ASCII for what it could not encode."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "ascii"
        plain = text.translate(_ASCII).encode(encoding, "backslashreplace")
        return self._stream.write(plain.decode(encoding))
