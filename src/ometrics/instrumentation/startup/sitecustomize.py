# SPDX-License-Identifier: MIT
"""Measures a process that a program under `ometrics run` started.

Python imports the first module of this name that it finds at every start. After ours
comes the one that it would have found without us. Any Python may get here, also one
that is too old for `ometrics`, so this file is kept simple.
"""

import importlib
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120


def _measure() -> None:
    """Measure this process, or leave it as it is."""
    try:
        from ometrics.instrumentation import children

        children.join()
    except Exception:  # noqa: BLE001, S110 - the runner says who was not reached
        pass


def _run_the_shadowed() -> None:
    """Import the `sitecustomize` that is behind this one, if there is one."""
    ours = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours


_measure()
# The program is to find its own modules where it would without us.
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]  # noqa: PTH100
_run_the_shadowed()
