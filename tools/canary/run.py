"""Runs one seeded fault of `canary.c`, or its repaired twin, in this process.

Usage: `run.py LIBRARY FUNCTION faulty|repaired`, under a sanitizer's environment.
"""

from __future__ import annotations

import ctypes
import sys
import threading


def main(library: str, function: str, variant: str) -> None:
    """Call `function` of `library`: in two threads at once if it is the data race."""
    fault = getattr(ctypes.CDLL(library), function)
    repaired = int(variant == "repaired")
    callers = 2 if function == "data_race" else 1

    # ctypes releases the interpreter's lock for the call: the threads really meet.
    threads = [threading.Thread(target=fault, args=(repaired,)) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main(*sys.argv[1:])
