# SPDX-License-Identifier: MIT
"""Work in a forked child, and what it returned."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a forked child; it must end within ten seconds."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    timer = threading.Timer(10, os.kill, (pid, 9))
    timer.start()
    with open(reader, "rb") as answers:  # noqa: PTH123 - a descriptor
        answer = answers.read()
    timer.cancel()
    timer.join()
    os.waitpid(pid, 0)
    return json.loads(answer)
