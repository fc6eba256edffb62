# SPDX-License-Identifier: MIT
"""
Workers that live for some requests each, as a pool that recycles them has.

Half are killed, half end by themselves; nobody reads meanwhile. Then somebody does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from ometrics import MetricsCollector, attach

MODELS = 100


def work(mc: MetricsCollector, i: int) -> None:
    """One worker's life."""
    for k in range(10):
        mc.record_latency(f"m{(i + k * 10) % MODELS}", 0.001 * (k + 1))
    mc.start_call(f"m{i % MODELS}").end("success", total=100)
    if i % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)


def main(count: int) -> dict[str, object]:
    """Recycle `count` workers; the figures."""
    directory = Path(tempfile.mkdtemp(prefix="ometrics-"))
    mc = MetricsCollector(directory=directory)
    most = 0
    for i in range(count):
        pid = os.fork()
        if not pid:
            work(mc, i)
        os.waitpid(pid, 0)
        if i % 50 == 0:
            most = max(most, sum(file.stat().st_size for file in directory.iterdir()))
    source = attach(directory)
    first = source.snapshot()
    began = time.perf_counter()
    again = source.snapshot()
    figures = {
        "workers": count,
        "requests": [first.total_requests, again.total_requests],
        "models": len(again.models),
        "files": len(list(directory.iterdir())),
        "bytes": sum(file.stat().st_size for file in directory.iterdir()),
        "most bytes": most,
        "seconds": time.perf_counter() - began,
        "bad": source.bad,
    }
    shutil.rmtree(directory)
    return figures


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))  # noqa: T201
