"""The project's own tools do what they are trusted for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECK_NOGIL = Path(__file__).parents[2] / "tools" / "check_nogil.py"

GOOD = '''
from libc.string cimport memcpy

cdef extern from "_mutex.h" nogil:
    ctypedef struct om_mutex:
        pass
    void om_mutex_acquire(om_mutex *mutex) noexcept
    void om_mutex_release(om_mutex *mutex) noexcept
    long om_wall_ns()

cdef inline int cell_of(double value) noexcept nogil:
    return <int> value

cdef void locked_add(
    long *cells, double value,  # a comment (with a parenthesis
) noexcept nogil:
    """Adds one: not a call of append()."""
    cells[cell_of(value)] += om_wall_ns()
    return

cdef class Core:
    def record(self, double value, /):
        om_mutex_acquire(&self.copying)
        while True:
            om_mutex_acquire(&self.mutex)
            if self.closed:
                break
            om_mutex_release(&self.mutex)
            self.cells = self.allocate()
        if self.closed:
            om_mutex_release(&self.mutex)
            raise ValueError("closed")
        locked_add(self.cells, value)
        memcpy(self.copy, self.cells, sizeof(self.cells))
        om_mutex_release(&self.mutex)
        return self.describe()
'''


def run_check(source: str, directory: Path) -> tuple[int, list[str]]:
    """Return the exit code and the problems that the check prints for `source`."""
    path = directory / "sample.pyx"
    path.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(CHECK_NOGIL), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()[:-1]


def test_check_nogil_passes_good_source(tmp_path: Path) -> None:
    """Source that keeps the law passes, comments and texts notwithstanding."""
    code, problems = run_check(GOOD, tmp_path)

    assert (0, []) == (code, problems)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("\n) noexcept nogil:", "\n) noexcept:", "`locked_add` must"),
        ("double value) noexcept nogil", "double value) nogil", "calls `cell_of`"),
        ("long om_wall_ns()", "long om_wall_ns() except -1", "calls `om_wall_ns`"),
        ("memcpy(self.copy,", "self.log.append(self.copy,", "calls `append`"),
        ("locked_add(self.cells, value)\n", "raise ValueError\n", "has `raise`"),
        ("        memcpy(", "        with gil: memcpy(", "has `with`"),
        (
            "            om_mutex_release(&self.mutex)\n            self.c",
            "            self.c",
            "calls `allocate`",
        ),
        ("    return\n\n", "    om_mutex_lock(m)\n\n", "calls `om_mutex_lock`"),
        (
            "        om_mutex_release(&self.mutex)\n        return",
            "        return",
            "has `return`",
        ),
        (
            "        om_mutex_release(&self.mutex)\n        return self.describe()",
            "",
            "never",
        ),
    ],
)
def test_check_nogil_finds_each_breach(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    """One change that breaks the law fails the check, which names the breach."""
    assert 1 == GOOD.count(old)

    code, problems = run_check(GOOD.replace(old, new), tmp_path)

    assert 1 == code
    assert any(problem in line for line in problems), problems
