# SPDX-License-Identifier: MIT
"""An agent that is not in Python: one call by curl, measured by a proxy."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from typing import Final

from rich.text import Text

from ometrics.collector import MetricsCollector
from ometrics.demo.server import EngineServer
from ometrics.demo.team import TOKENS
from ometrics.view.escape import harmless

QUESTION: Final = "Say hello."
PATIENCE: Final = 60.0  # seconds


def ask(
    server: EngineServer, collector: MetricsCollector, log: Callable[[Text], None]
) -> None:
    """
    Ask once through a proxy that stands in front of the server meanwhile.

    Args:
        server: Where inference happens.
        collector: Who counts.
        log: Called with a line each for people.
    """
    curl = shutil.which("curl")
    if curl is None:
        log(Text("curl is not installed: no agent in another language", "dim"))
        return
    try:
        from ometrics.proxy import Proxy

        proxy = Proxy.start(collector, upstream=server.address, port=0)
    except (ImportError, OSError, ValueError) as error:
        log(Text(f"no proxy for an agent in another language: {error}", "dim"))
        return
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": QUESTION}],
        "options": {"num_predict": TOKENS},
    }
    url = f"{proxy.url}/api/chat"
    command = ("curl", "-sN", url, "-d", json.dumps(body))
    log(
        Text("An agent in another language, by a proxy in front of the server:", "bold")
    )
    log(Text(f"$ {shlex.join(command)}", "cyan"))
    with proxy:
        try:
            done = subprocess.run(  # noqa: S603 - a fixed program, no shell
                (curl, "--noproxy", "*", *command[1:]),
                capture_output=True,
                check=True,
                timeout=PATIENCE,
            )
            said = [json.loads(line)["message"] for line in done.stdout.splitlines()]
        except (subprocess.SubprocessError, ValueError, KeyError) as error:
            log(Text(f"it got no answer: {type(error).__name__}", "red"))
        else:
            log(Text(harmless("".join(part["content"] for part in said)), "dim"))
