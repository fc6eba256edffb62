# SPDX-License-Identifier: MIT
"""What instrumenting the official client costs a call and a chunk.

The server is `ometrics.testing.ScriptedOllama` in another process. What is compared is
the CPU time of the calling thread, bare and instrumented in turns: waiting for the
network is not ours, and is many times larger than what we look for.

    python benchmarks/clients.py ometrics           prints JSON
    python benchmarks/clients.py openllmetry        ... of the peer
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import timeit
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import thread_time, thread_time_ns

from measures import Row

CHUNKS = 200  # of a long stream
TURNS = 60
# In one turn, and how many of these are not counted: a class that was just patched is
# slow until CPython has adapted its bytecode anew, which takes some 50 executions.
CALLS, STREAMS = 120, 6
WARM_UP = {CALLS: 70, STREAMS: 3}
NAMES = ("ometrics", "openllmetry")

SERVER = """
import sys
from ometrics.testing import ScriptedOllama
with ScriptedOllama(answer=["word "] * int(sys.argv[1]), history=1) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""

Switch = Callable[[], object]


def _ometrics() -> tuple[Switch, Switch, str]:
    import ometrics.ollama

    collector = ometrics.MetricsCollector()
    return (
        lambda: ometrics.ollama.instrument(collector),
        lambda: ometrics.ollama.uninstrument(collector),
        f"ometrics {ometrics.__version__}",
    )


def _openllmetry() -> tuple[Switch, Switch, str]:
    from opentelemetry.instrumentation.ollama import OllamaInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    package = "opentelemetry-instrumentation-ollama"
    instrumentor = OllamaInstrumentor()
    providers = {  # spans are made, but go nowhere: generous
        "tracer_provider": TracerProvider(),
        "meter_provider": MeterProvider([InMemoryMetricReader()]),
    }
    return (
        lambda: instrumentor.instrument(**providers),
        instrumentor.uninstrument,
        f"{package} {version(package)}",
    )


def _call(chat: Callable[..., object], *, stream: bool) -> float:
    """CPU nanoseconds of one call of this thread."""
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    start = thread_time_ns()
    answer = chat(model="llama3.2", messages=messages, stream=stream)
    if stream:
        for _ in answer:  # type: ignore[attr-defined]
            pass
    return thread_time_ns() - start


def child(name: str) -> None:
    """Measure one instrumentation and print what it adds."""
    on, off, package = {"ometrics": _ometrics, "openllmetry": _openllmetry}[name]()
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(CHUNKS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        import ollama

        client = ollama.Client(host=server.stdout.readline().strip())
        # The peer does not restore what it patched: once watched, watched for ever.
        turns = (False, True) * TURNS
        if name != "ometrics":
            turns = tuple(sorted(turns))
        costs: dict[tuple[bool, bool], list[float]] = {}
        now = False
        for watched in turns:
            if watched != now:
                (on if watched else off)()
                now = watched
            for stream in (False, True):
                n = STREAMS if stream else CALLS
                taken = [_call(client.chat, stream=stream) for _ in range(n)]
                costs.setdefault((watched, stream), []).extend(taken[WARM_UP[n] :])
        server.communicate("")
    found = {"package": package, "best": _split(costs, min)}
    print(json.dumps(found | {"usually": _split(costs, median)}))


def _split(
    costs: dict[tuple[bool, bool], list[float]], pick: Callable[[list[float]], float]
) -> dict[str, tuple[float, float]]:
    """Microseconds added to, and bare cost of, a call and a chunk."""
    us = {key: pick(taken) / 1e3 for key, taken in costs.items()}
    calls = us[True, False] - us[False, False], us[False, False]
    streams = us[True, True] - us[False, True], us[False, True]
    chunks = [(s - c) / CHUNKS for s, c in zip(streams, calls, strict=True)]
    return {"call": calls, "chunk": (chunks[0], chunks[1])}


def clients() -> list[Row]:
    """What each instrumentation adds to a call and to a chunk."""
    rows = []
    path = os.pathsep.join(filter(None, sys.path))
    for name in NAMES:
        done = subprocess.run(
            [sys.executable, str(Path(__file__)), name],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            why = (done.stderr.strip().splitlines() or ["?"])[-1]
            rows.append(Row(f"instrumented client: {name}", f"left out: {why}"))
            continue
        found = json.loads(done.stdout)
        ours = name == "ometrics"
        for what, bar in (("call", 10), ("chunk", 0.5)):
            added, bare = found["best"][what]
            usually, _ = found["usually"][what]
            rows.append(
                Row(
                    f"instrumented client, a {what}: {found['package']}",
                    f"{added:.2f} us of CPU above {bare:.1f} (usually {usually:.2f})",
                    f"<= {bar} us" if ours else "",
                    added <= bar if ours else None,
                )
            )
    return [*rows, *others()]


def others() -> list[Row]:
    """What a request that is no call to a model costs more, by HTTP client."""
    import http.client

    import aiohttp
    import httpx

    url = "http://localhost:11434/some/other/path"
    request = httpx.Request("POST", url, content=b"x")
    transport = object.__new__(httpx.HTTPTransport)
    connection = object.__new__(http.client.HTTPConnection)
    session = object.__new__(aiohttp.ClientSession)
    sent = object.__new__(aiohttp.ClientRequest)
    kinds: dict[str, list[tuple[type, str, Callable[[], object]]]] = {
        "httpx": [
            (
                httpx.HTTPTransport,
                "handle_request",
                lambda: transport.handle_request(request),
            )
        ],
        "http.client": [
            (
                http.client.HTTPConnection,
                "request",
                lambda: connection.request("POST", "/some/other/path", b"x", {}),
            )
        ],
        "aiohttp": [
            (
                aiohttp.ClientSession,
                "_request",
                lambda: session._request("POST", url, data=b"x"),
            ),
            (aiohttp.ClientRequest, "send", lambda: sent.send(None)),
        ],
    }
    rows = []
    for name, patched in kinds.items():
        added = sum(_added(*one) for one in patched)
        rows.append(
            Row(
                f"a request of {name} that is no call",
                f"{added:.0f} ns of CPU more",
                "<= 300 ns",
                added <= 300,
            )
        )
    return rows


def _added(owner: type, method: str, call: Callable[[], object]) -> float:
    """Nanoseconds that our patch of a method adds, above one that does nothing."""
    import ometrics

    own = vars(owner)[method]
    setattr(owner, method, lambda *_, **__: None)
    bare = _nanoseconds(call)
    collector = ometrics.instrument(ometrics.MetricsCollector())
    measured = _nanoseconds(call)
    ometrics.uninstrument(collector)
    setattr(owner, method, own)
    return measured - bare


def _nanoseconds(call: Callable[[], object]) -> float:
    number = 20_000
    best = min(timeit.repeat(call, number=number, repeat=15, timer=thread_time))
    return best / number * 1e9


if __name__ == "__main__":
    child(sys.argv[1])
