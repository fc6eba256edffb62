# SPDX-License-Identifier: MIT
"""Keys of a terminal, one by one, and the signals that come meanwhile.

The terminal is as it was before whenever the program does not wait for keys: at its
end, however it ends, and while it is stopped (Ctrl-Z).
"""

from __future__ import annotations

import codecs
import os
import select
import signal
from collections import deque
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing_extensions import Self

#: Keys that send more than one character.
_SEQUENCES: Final = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
}
_LONGEST: Final = 6
_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGTSTP", "SIGWINCH")


class Keyboard:
    """
    The keys of a terminal, without Enter and without showing them.

    Args:
        terminal: Descriptor of one; `None`: there are signals only.

    Thread-safety:
        The main thread only, as it handles signals.
    """

    def __init__(self, terminal: int | None) -> None:
        self._terminal = terminal
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._wakeup: tuple[int, int] = (-1, -1)
        self._wakeup_before = -1
        self._came: deque[int] = deque()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def __enter__(self) -> Self:
        """Take the terminal and the signals."""
        self._wakeup = os.pipe()
        for end in self._wakeup:
            os.set_blocking(end, False)
        self._wakeup_before = signal.set_wakeup_fd(
            self._wakeup[1], warn_on_full_buffer=False
        )
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            # What is ignored stays ignored, as under nohup.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._on_signal)
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        """Give both back."""
        self.give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        for end in self._wakeup:
            os.close(end)

    def take(self) -> None:
        """Let the terminal hand over each key at once, unseen."""
        if self._terminal is None:
            return
        import termios
        import tty

        self._before = termios.tcgetattr(self._terminal)
        tty.setcbreak(self._terminal, termios.TCSADRAIN)

    def give_back(self) -> None:
        """Leave the terminal as it was."""
        if self._before is None or self._terminal is None:
            return
        import termios

        termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)
        self._before = None

    def wait(self, seconds: float) -> tuple[list[str], list[int]]:
        """
        Wait for keys or signals.

        Args:
            seconds: At most.

        Returns:
            Keys by name, such as `q`, `up`, `escape`; and numbers of signals. A
            terminal that is gone is a SIGHUP.
        """
        files = [self._wakeup[0]]
        if self._terminal is not None:
            files.append(self._terminal)
        ready = select.select(files, (), (), max(seconds, 0.0))[0]
        if self._wakeup[0] in ready:
            os.read(self._wakeup[0], 4096)
        keys: list[str] = []
        if self._terminal in ready:
            keys = self._read(self._terminal)
        came = list(self._came)
        self._came.clear()
        return keys, came

    def _read(self, terminal: int) -> list[str]:
        try:
            data = os.read(terminal, 4096)
        except OSError:
            data = b""
        if not data:
            self._terminal = None
            self._came.append(signal.SIGHUP)
            return []
        return keys_of(self._decode(data))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._came.append(number)


def keys_of(text: str) -> list[str]:
    """
    The keys that a terminal sent, by name; unknown sequences are left out.

    Args:
        text: All that came at once.
    """
    keys = []
    while text:
        length = next((n for n in range(_LONGEST, 0, -1) if text[:n] in _SEQUENCES), 0)
        if length > 1 or (length and not text.startswith(("\x1b[", "\x1bO"))):
            keys.append(_SEQUENCES[text[:length]])
        elif text[0] == "\x1b":
            length = _end_of_sequence(text)
        else:
            length = 1
            keys.append(text[0])
        text = text[length:]
    return [key for key in keys if key.isprintable()]


def _end_of_sequence(text: str) -> int:
    """Where an unknown escape sequence ends: after its first letter or tilde."""
    for i, character in enumerate(text[2:], 3):
        if character.isalpha() or character == "~":
            return i
    return len(text)
