# SPDX-License-Identifier: MIT
"""A program in a child process, which is waited for, and ended like.

So what is told of the program is told however it ends: killed, by `os._exit`, replaced
by another. The child is in the same process group and has the same terminal, streams
and working directory; signals that are sent to this process go on to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

# Sent on to the program. What stops and continues jobs is left to the terminal.
_PASSED_ON: Final = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
_BY_KEYS: Final = {signal.SIGINT, getattr(signal, "SIGQUIT", signal.SIGINT)}
_FROM_KERNEL: Final = 0x80  # <asm-generic/siginfo.h>: SI_KERNEL
_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_POLL: Final = 0.05  # seconds, where signals cannot be waited for with a limit


class Child:
    """
    A forked process that waits until it may begin.

    Attributes:
        pid: Its number; 0 in the child itself.
        code: How it ended: an exit code, or the negative number of a signal; `None`
            while it runs.

    Thread-safety:
        The main thread.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        parent = os.getpid()
        self._signals = {*_PASSED_ON, signal.SIGCHLD}
        # Blocked before the fork: one that comes at once is passed on as well.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        handler = signal.signal(signal.SIGCHLD, _noted)  # so that it is not ignored
        begin, self._begin = os.pipe()
        _flush()
        self.pid = os.fork()
        if self.pid:
            os.close(begin)
            return
        os.close(self._begin)
        _end_with(parent)
        may_begin = os.read(begin, 1)
        os.close(begin)
        if not may_begin:
            os._exit(0)
        signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def begin(self) -> None:
        """Let it run."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._begin, b"x")
        os.close(self._begin)

    def abandon(self) -> None:
        """Let it end without having done anything."""
        os.close(self._begin)
        os.waitpid(self.pid, 0)

    def wait(self, meanwhile: Callable[[], None], interval: float) -> int:
        """
        Wait for its end, and pass signals on to it.

        Args:
            meanwhile: What to do every `interval` seconds. Must not raise.
            interval: Seconds.

        Returns:
            Its exit code, or the negative number of a signal.
        """
        following = time.monotonic() + interval
        while self.code is None:
            received = _next_signal(self._signals, following - time.monotonic())
            if received is not None and received[0] in _PASSED_ON:
                self._pass_on(*received)
            if time.monotonic() >= following:
                meanwhile()
                following = time.monotonic() + interval
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        self._attend()
        return self.code

    def _attend(self) -> None:
        """Let signals end this process again: those to come, not those that came."""
        while _next_signal(self._signals, 0.0):
            pass
        for number in _PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)

    def _pass_on(self, number: int, origin: int | None) -> None:
        """Unless the terminal has sent it to the whole group already."""
        if number in _BY_KEYS and (
            _has_terminal() if origin is None else origin == _FROM_KERNEL
        ):
            return
        os.kill(self.pid, number)


def end_like(code: int) -> NoReturn:
    """
    End this process as another one ended.

    Args:
        code: Its exit code, or the negative number of a signal.

    Raises:
        SystemExit: With the code.
    """
    if code < 0:
        _leave_no_core()
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        _flush()
        os.kill(os.getpid(), -code)
        code = 128 - code  # only for a signal that ends nothing
    sys.exit(code)


def _next_signal(numbers: set[int], seconds: float) -> tuple[int, int | None] | None:
    """A blocked signal that came, and where from if that is known."""
    seconds = max(seconds, 0.0)
    if hasattr(signal, "sigtimedwait"):
        info = signal.sigtimedwait(numbers, seconds)
        return None if info is None else (info.si_signo, info.si_code)
    deadline = time.monotonic() + seconds
    while not numbers & signal.sigpending():
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL)
    return signal.sigwait(numbers), None


def _flush() -> None:
    """Write what is still to be written; there may be no standard output."""
    with contextlib.suppress(AttributeError, OSError):
        sys.stdout.flush()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _noted(number: int, frame: object) -> None:
    """Nothing: the signal is waited for."""


def _end_with(parent: int) -> None:
    """End when the parent is killed, as the program would if it were that process."""
    with contextlib.suppress(ImportError, AttributeError, OSError, TypeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(0)


def _leave_no_core() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
