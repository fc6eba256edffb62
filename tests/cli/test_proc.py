# SPDX-License-Identifier: MIT
"""What is said of processes: flags of Python, and words for ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ometrics.cli import proc

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("python agent.py -I", ""),
        ("python -I agent.py", "-I"),
        ("python -BS agent.py", "-S"),
        ("python -u -E -m agent", "-E"),
        ("python -W error -I agent.py", "-I"),
        ("python -Werror -X dev -S agent.py", "-S"),
        ("python -W ISE agent.py", ""),
        ("python -c -I", ""),
        ("python -mI", ""),
        ("python -", ""),
        ("python", ""),
    ],
)
def test_flags_that_ignore_the_environment(line: str, flag: str) -> None:
    """They are found where Python finds them, and not in what is the program's."""
    assert flag == proc._ignoring(line.split())


@linux
def test_processes_are_found_below_their_parent() -> None:
    """A child is below this process, and known by its number and start."""
    with subprocess.Popen(["sleep", "60"]) as child:
        there = proc.processes()
        below = proc.below(os.getpid(), there)
        child.kill()

    assert child.pid in {pid for pid, _ in below}
    assert os.getpid() not in {pid for pid, _ in below}


@linux
@pytest.mark.parametrize(("end", "words"), [(9, "killed by signal 9"), (0, "exit 7")])
def test_how_a_process_ended_that_is_long_gone(end: int, words: str) -> None:
    """Held by its descriptor, where Linux tells; a number that comes again is not."""
    child = subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE)
    (key,) = (key for key in proc.processes() if key[0] == child.pid)
    handle = proc.Handle.of(*key)
    stranger = proc.Handle.of(key[0], key[1] + 1)
    if end:
        child.send_signal(signal.Signals(end))
    child.communicate()

    assert handle.end() in {words, "ended"}  # before Linux 6.15
    assert "ended" == stranger.end()
    handle.close()
