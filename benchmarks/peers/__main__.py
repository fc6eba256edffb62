# SPDX-License-Identifier: MIT
"""`python -m peers NAME`: times one peer and prints JSON; one process, one peer."""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import version

from rounds import measure


def main(name: str) -> None:
    """Print `{"packages": {...}, "best": {operation: ns}, "median": {...}}`."""
    peer = importlib.import_module(f"peers.{name}")
    timings = {}
    for rounds, statements in ((200, peer.fast()), (15, peer.slow())):
        if statements:
            timings.update(measure(statements, rounds=rounds))
    print(
        json.dumps(
            {
                "packages": {package: version(package) for package in peer.PACKAGES},
                "best": {key: timing.best for key, timing in timings.items()},
                "median": {key: timing.median for key, timing in timings.items()},
            }
        )
    )


main(sys.argv[1])
