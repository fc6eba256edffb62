# SPDX-License-Identifier: MIT
"""One agent's scenarios in a process of its own: what each gave, what was counted.

    python child.py AGENT.py bare|before|after SCENARIO=URL...

Prints JSON. `before`: instrumented before the framework is imported; `after`: after it.
"""

from __future__ import annotations

import gc
import json
import runpy
import sys
from collections.abc import Callable
from typing import Any


def outcome(scenario: Callable[[str], Any], url: str) -> Any:
    """What a scenario gives: its result, or the kind of its exception."""
    try:
        return scenario(url)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return f"raised {type(error).__name__}"


def counted(collector: Any) -> dict[str, int]:
    """What was counted since the last time."""
    snapshot = collector.reset_metrics()
    calls = [c for model in snapshot.models.values() for c in model.calls.values()]
    return {
        "calls": sum(
            c.successful_reqs + c.failed_reqs + c.cancelled_reqs for c in calls
        ),
        "failed": sum(c.failed_reqs for c in calls),
        "in_flight": sum(c.in_flight for c in calls),
        "prompt_tokens": sum(c.prompt_tokens or 0 for c in calls),
        "completion_tokens": sum(c.completion_tokens or 0 for c in calls),
        "internal_errors": snapshot.internal_errors,
    }


def main() -> None:
    """See the module."""
    path, mode, *urls = sys.argv[1:]
    collector = None
    if mode != "bare":
        import ometrics

        collector = ometrics.MetricsCollector()
    if collector is not None and mode == "before":
        ometrics.instrument(collector)
    scenarios = runpy.run_path(path)["SCENARIOS"]
    if collector is not None and mode == "after":
        ometrics.instrument(collector)
    found = {}
    for item in urls:
        name, _, url = item.partition("=")
        result = outcome(scenarios[name], url)
        gc.collect()
        found[name] = {"result": result}
        if collector is not None:
            found[name]["counted"] = counted(collector)
    sys.stdout.write(f"FOUND {json.dumps(found, default=str)}\n")


if __name__ == "__main__":
    main()
