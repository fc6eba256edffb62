# SPDX-License-Identifier: MIT
"""
Segments with bits flipped, bytes replaced, cut and grown: read, or refused by name.

No reading may raise anything but `BadSegment`, take long, or take more memory than the
file is large. What is read must be a sound snapshot: it is exported.
"""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

from ometrics import MetricsCollector
from ometrics._mirror import BadSegment
from ometrics._segment_reader import SegmentReader
from ometrics.segments import identity

HEADER = 4096  # the header's end, and that of what is worth to be hit there
FIELDS = {"total": 9_000, "load": 10, "decode": 5_000, "prompt_tokens": 3}


def original() -> bytes:
    """A segment with something of each kind."""
    directory = Path(tempfile.mkdtemp(prefix="ometrics-"))
    mc = MetricsCollector(directory=directory)
    for model in ("a", "b"):
        mc.record_latencies(model, [0.001 * i for i in range(100)])
        mc.record_error(model, "E", 0.1)
        mc.start_call(model, provider="openai").end("success", **FIELDS)
        mc.start_call(model).end("failure", "TIMEOUT")
    running = mc.start_call("a")
    mc.record_task_completion(True, 3.0)
    mc.update_resource_metrics(1.0, 2.0, 3)
    (file,) = directory.iterdir()
    data = file.read_bytes()
    running.discard()
    return data


def places(data: bytes) -> list[int]:
    """Where bytes are that say something: most of a segment is zeroes."""
    return [i for i, byte in enumerate(data) if byte]


def mutate(rng: random.Random, data: bytes, where: list[int]) -> dict[int, int]:
    """Some bytes to put in place of others."""
    changed = {}
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.choice(where) if rng.random() < 0.9 else rng.randrange(len(data))
        if rng.random() < 0.5:
            changed[at] = data[at] ^ 1 << rng.randrange(8)
        elif rng.random() < 0.5:
            changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        else:
            word = rng.choice((0, 1, 1 << 63, 2**64 - 1, len(data), -8, -16))
            start = at & ~7
            changed |= dict(
                enumerate(struct.pack("<Q", word % 2**64), min(start, len(data) - 8))
            )
    return changed


def main(count: int) -> dict[str, object]:
    """Read `count` mutants; the figures."""
    logging.disable()
    rng = random.Random(count)
    data = original()
    where = [*places(data), *(10 * [i for i in places(data) if i < HEADER])]
    fields = identity.fields_digest()
    file, path = tempfile.mkstemp(prefix="ometrics-")
    os.write(file, data)
    reasons: dict[str, int] = {}
    slowest = 0.0
    memory = 0
    for i in range(count):
        changed = mutate(rng, data, where)
        for at, byte in changed.items():
            os.pwrite(file, bytes((byte,)), at)
        size = len(data)
        if rng.random() < 0.05:
            size = rng.randrange(len(data))
            os.truncate(file, size)
        began = time.perf_counter()
        try:
            snapshot = SegmentReader(file, len(data), fields).read(rng.random() < 0.5)
        except BadSegment as error:
            reasons[error.reason] = reasons.get(error.reason, 0) + 1
        else:
            reasons["read"] = reasons.get("read", 0) + 1
            snapshot.to_json()
        slowest = max(slowest, time.perf_counter() - began)
        if size < len(data):
            os.pwrite(file, data[size:], size)
        for at in changed:
            os.pwrite(file, data[at : at + 1], at)
        if i == min(count // 2, 1000):
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    Path(path).unlink()
    return {"reasons": reasons, "slowest": slowest, "grown_kib": grown}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))  # noqa: T201
