# SPDX-License-Identifier: MIT
"""The directory of a run: where its processes have their records meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ometrics.segments import attach, places, runtime_directory

_NAME: Final = re.compile(r"run-(\d+)-[0-9a-f]+")


def new_directory() -> str:
    """
    Make one for a run, where `ometrics top` looks for them.

    What killed runs left there is removed. Where that place is not to be had, as after
    `sudo`, it is elsewhere.

    Raises:
        OSError: It cannot be made.
    """
    home = runtime_directory()
    path = home / f"run-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        os.close(places.open_directory(home, create=True))
        os.close(places.open_directory(path, create=True))
    except OSError:
        return tempfile.mkdtemp(prefix="ometrics-run-")
    for left in _left(home):
        remove(str(left))
    return str(path)


def remove(directory: str) -> None:
    """Remove one, with all that is in it."""
    shutil.rmtree(directory, ignore_errors=True)


def _left(home: Path) -> Iterator[Path]:
    """Directories of runs of which no process is left."""
    with contextlib.suppress(OSError):
        for path in list(home.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match and not _runs(int(match[1])) and not _has_living(path):
                yield path


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _has_living(path: Path) -> bool:
    """Whether a process has its records in there; also if that is not known."""
    try:
        return any(one.alive for one in attach(path).instances())
    except OSError:
        return True
