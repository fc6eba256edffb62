# SPDX-License-Identifier: MIT
"""
A forked child holds records that its parent goes on changing in a file.

The parent takes as many snapshots, each a new epoch, as would make its records look
current to the child; then the child records through what it inherited.
"""

from __future__ import annotations

import json
import os
import tempfile

from ometrics import MetricsCollector

SNAPSHOTS = 5


def main() -> dict[str, int]:
    """How many of a child's records its parent has; none should be."""
    mc = MetricsCollector(directory=tempfile.mkdtemp(prefix="ometrics-"))
    bound = mc.model("m")
    found = 0
    for n in range(SNAPSHOTS):
        mc.reset_metrics()
        mc.record_latency("m", 0.1)
        mc.record_latency("m", 0.1)  # again by name, so that its slot is remembered
        ready, go = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            mc.record_latency("m", 0.2)
            bound.record_latency(0.2)
            os._exit(0)
        os.read(ready[0], 1)
        for _ in range(n):
            mc.snapshot()
        bound.record_latency(0.1)
        os.write(go[1], b"x")
        os.waitpid(pid, 0)
        found += mc.snapshot().models["m"].successful_reqs != 3
    return {"in the parent's file": found}


if __name__ == "__main__":
    print(json.dumps(main()))  # noqa: T201
