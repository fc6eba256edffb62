# SPDX-License-Identifier: MIT
"""What stands in the process of a program under `ometrics run`: the live table.

Its end comes after the program's own exit handlers and threads, or from a signal
handler, and never changes how the process ends.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

from rich.console import Console

from ometrics.cli.above import Redirection
from ometrics.cli.findings import FindingLines
from ometrics.diagnosis import Findings
from ometrics.sources import Source
from ometrics.view.live import live

# Signals that end a program which does not handle them, without its exit handlers.
ENDING: Final = ("SIGTERM", "SIGHUP")


def at_end(do: Callable[[], None]) -> None:
    """
    Do something when this process ends, unless it is killed; not in forked children.

    Args:
        do: Called once. Must not raise.
    """
    pid = os.getpid()
    left = [do]

    def end() -> None:
        if left and os.getpid() == pid:
            left.pop()()

    def on_signal(number: int, frame: FrameType | None) -> None:
        """End as if this handler had never been."""
        del frame
        # First, so that a second signal ends what hangs.
        signal.signal(number, signal.SIG_DFL)
        try:
            end()
        finally:
            os.kill(os.getpid(), number)

    # First registered is last called: after all exit handlers of the program.
    atexit.register(end)
    for name in ENDING:
        number = getattr(signal, name, None)
        # What is ignored stays ignored, as under nohup.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, on_signal)


def show_live(source: Source, console: Console) -> Callable[[], None]:
    """
    Show the live table, with what the program prints above it.

    Returns:
        What ends it.
    """
    streams = Redirection(console)
    display = live(source, console, above=streams, below=FindingLines(Findings(source)))
    streams.start()
    display.start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=streams.forget)

    def stop() -> None:
        display.stop()
        if streams.stop():
            console.print()

    return stop
