# SPDX-License-Identifier: MIT
"""What the tests of the command share: its environment, its runs, and programs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ometrics
from ometrics import LatencyHistogram, PerformanceMetrics, Snapshot
from ometrics.testing import ScriptedOllama, chat_chunk, chat_done

OMETRICS = (sys.executable, "-m", "ometrics")
ROOT = Path(ometrics.__file__).parents[1]  # where this very ometrics is imported from
MODEL = "llama3.2"

# Asks the server at OLLAMA_HOST once, and says what it heard.
ASK = """
import ollama

def ask(**options):
    message = {"role": "user", "content": "Hi"}
    return ollama.chat(model="llama3.2", messages=[message], **options)

print(ask().message.content)
"""


def environment(
    server: ScriptedOllama | None = None, **variables: str
) -> dict[str, str]:
    """This process' environment without what would colour or widen the output."""
    unwanted = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTHONWARNINGS"}
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    env |= {"TERM": "xterm-256color"}
    if server is not None:
        env["OLLAMA_HOST"] = server.url
    return env | variables


def call(
    *args: str | Path,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run the command with its streams in pipes."""
    return python("-m", "ometrics", *args, env=env, cwd=cwd, stdin=stdin)


def python(
    *args: str | Path,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run Python with its streams in pipes."""
    return subprocess.run(
        [sys.executable, *args],
        env=environment() if env is None else env,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def stream(*words: str) -> list[dict[str, object]]:
    """A script of one streamed answer."""
    return [*map(chat_chunk, words), chat_done(eval_count=len(words))]


def snapshot(
    *,
    model: str = MODEL,
    latencies: tuple[float, ...] = (0.1, 0.2, 0.3),
    errors: int = 0,
) -> Snapshot:
    """A snapshot of one model."""
    base = ometrics.MetricsCollector().snapshot()
    metrics = PerformanceMetrics(
        model=model,
        successful_reqs=len(latencies),
        failed_reqs=errors,
        errors={"TIMEOUT": errors} if errors else {},
        latency_hist=LatencyHistogram.of(latencies),
        uptime_seconds=10.0,
    )
    return Snapshot(
        instance_id=base.instance_id,
        start_time=base.start_time,
        collection_time=base.collection_time,
        uptime_seconds=10.0,
        models={model: metrics},
    )


def export(path: Path, what: Snapshot | None = None) -> Path:
    """Write a snapshot as the command reads it."""
    path.write_bytes((what or snapshot()).to_json())
    return path


def load(path: Path) -> Snapshot:
    """Read what the command wrote."""
    return Snapshot.from_json(path.read_bytes())


@contextmanager
def proxy_command(
    server: ScriptedOllama, *options: str
) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """`ometrics proxy`: its process, its address and that of its metrics."""
    command = (*OMETRICS, "proxy", "--upstream", server.url, "--listen", "127.0.0.1:0")
    process = subprocess.Popen(
        (*command, "--serve", "0", *options),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        lines = "".join(process.stderr.readline() for _ in range(3))
        url, metrics = re.search(
            r"OLLAMA_HOST=(\S+)\n.*?(http\S+)", lines, re.DOTALL
        ).groups()  # type: ignore[union-attr]
        yield process, url, metrics
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
