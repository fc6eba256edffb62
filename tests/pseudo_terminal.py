# SPDX-License-Identifier: MIT
"""A program in a pseudo-terminal, and what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyte

# Seconds until a program that says nothing is given up; only failures wait for it.
PATIENCE = 60


class Terminal:
    """
    A screen of `columns` x `lines` with a program on it.

    Args:
        argv: The program and its arguments.
        env: Its environment, all of it.
        columns: Width in characters.
        lines: Height in characters.
        cwd: Where it runs; None for here.
        stdout: A descriptor for its standard output instead of the terminal.
        stderr: The same for its standard error.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        columns: int = 120,
        lines: int = 30,
        cwd: Path | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.raw = b""
        self._screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        size = struct.pack("HHHH", lines, columns, 0, 0)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO  # an echoed Enter would scroll the screen
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setsid()
                fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
                for target, given in ((0, None), (1, stdout), (2, stderr)):
                    os.dup2(slave if given is None else given, target)
                os.closerange(3, 256)
                os.chdir(cwd or ".")
                os.execve(argv[0], list(argv), dict(env))
            finally:
                os._exit(127)
        os.close(slave)

    def read(self, seconds: float) -> bool:
        """Take what comes within `seconds`; whether anything can still come."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # the last process has closed it
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def wait_for(self, *texts: str) -> str:
        """
        Read until all texts are seen at once; the screen then.

        What is read may end amid a redrawn frame: name each text that is relied on.
        """
        deadline = time.monotonic() + PATIENCE
        while missing := [text for text in texts if text not in self.seen]:
            complaint = f"no {missing} in\n{self.seen}"
            assert time.monotonic() < deadline, complaint
            if not self.read(0.1):
                assert all(text in self.seen for text in texts), complaint
                break
        return self.screen

    def finish(self) -> int:
        """Read to the end; the exit code, or the negative number of a signal."""
        deadline = time.monotonic() + PATIENCE
        while self.read(0.1):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def press(self, keys: bytes) -> None:
        """Type keys; Ctrl-C is the byte 3."""
        os.write(self._master, keys)

    @property
    def screen(self) -> str:
        """The visible lines without trailing spaces."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def seen(self) -> str:
        """The visible lines and those that were scrolled away above them."""
        above = (
            "".join(line[x].data for x in range(self._screen.columns)).rstrip()
            for line in self._screen.history.top
        )
        return "\n".join((*above, self.screen))

    @property
    def cursor_is_visible(self) -> bool:
        """Whether the program left the cursor to be seen."""
        return not self._screen.cursor.hidden

    def close(self) -> None:
        """Let go of the terminal."""
        os.close(self._master)
