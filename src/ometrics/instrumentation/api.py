# SPDX-License-Identifier: MIT
"""`ometrics.instrument` and `ometrics.uninstrument`."""

from __future__ import annotations

from collections.abc import Iterable

from ometrics.collector import MetricsCollector
from ometrics.instrumentation.providers import known_host
from ometrics.instrumentation.registry import (
    INTERFACES,
    default_collector,
    registry,
)


def instrument(
    collector: MetricsCollector | None = None, *, hosts: Iterable[str] = ()
) -> MetricsCollector:
    """
    Measure every call to a model that this process makes. Idempotent.

        mc = ometrics.instrument()

    Calls are seen where they leave by httpx, aiohttp, or the standard library (so by
    requests and urllib3), sync or async, from a framework or by hand; in Ollama's,
    OpenAI's and Anthropic's forms. Measured are those to this machine, to `OLLAMA_HOST`
    and to `hosts`; and those that the packages `ollama` and `openai` make to anywhere.
    Clients may be imported before or after.

    Args:
        collector: Who counts; several may at once. `None`: this process's default
            collector, the same each time.
        hosts: Further hosts to measure, as `gpu-box`, `gpu-box:11434` or
            `http://gpu-box:11434`; `"*"`: all.

    Returns:
        The collector.

    Raises:
        TypeError: `hosts` is a lone string.
        ValueError: One of them names no host.

    Thread-safety:
        Any thread, at any time; calls under way stay as they began.
    """
    if isinstance(hosts, str):
        raise TypeError(f"hosts takes several, so write [{hosts!r}]")
    known = frozenset(map(known_host, hosts))
    collector = default_collector() if collector is None else collector
    registry.add(collector, INTERFACES, known)
    return collector


def uninstrument(collector: MetricsCollector | None = None) -> None:
    """
    Measure no more; calls under way are counted to their end.

    Args:
        collector: Only this one stops; `None`: all, also those that
            `ometrics.ollama.instrument()` and `ometrics.openai.instrument()` began.
            After the last, the HTTP clients have their own methods back.
    """
    registry.remove(collector, INTERFACES)
