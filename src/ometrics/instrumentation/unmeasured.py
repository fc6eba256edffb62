# SPDX-License-Identifier: MIT
"""What of this process's calls could not be measured, and what to do about it.

A partial view that looks whole misleads more than none.
"""

from __future__ import annotations

import sys
from typing import Final

# HTTP clients with a way of their own to the network, by the module that has it.
_OTHER_CLIENTS: Final = (
    *("curl_cffi", "grpc", "niquests", "primp", "pycurl", "rnet"),
    *("tornado.httpclient", "twisted.web.client"),
)


def notes(calls: int) -> list[str]:
    """
    Say in a line each what was not measured; none if there is nothing to say.

    Args:
        calls: How many were.
    """
    found = []
    if not calls:
        found.append(
            "no call to a model was seen: measured are calls to this machine and to"
            " OLLAMA_HOST, and those of the packages ollama and openai; for another"
            " server call ometrics.instrument(hosts=[...]) in the program"
        )
    others = [name for name in _OTHER_CLIENTS if name in sys.modules]
    if others:
        found.append(
            f"calls by {', '.join(others)} are not measured; a proxy in front of the"
            " server measures them: ometrics proxy --help"
        )
    if _has_had_children():
        found.append(
            "the program started processes, whose calls are not measured: start them"
            " with 'ometrics run' too, or measure at the server: ometrics proxy --help"
        )
    return found


def _has_had_children() -> bool:
    """Whether a child process was waited for, or still runs under multiprocessing."""
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.active_children():
        return True
    try:
        import resource
    except ImportError:  # Windows
        return False
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
