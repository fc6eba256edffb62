# SPDX-License-Identifier: MIT
"""Work of an agent that counts some of everything, for tests of the store."""

from __future__ import annotations

import random
from typing import Any

from ometrics import MetricsCollector
from ometrics.errors import ErrorTimeout

NAMES = [
    "llama3.2",
    'it\'s "quoted"',
    "'; drop table model_windows; --",
    "x" * 256,
    "%s %(name)s ? :name $1 {}",
    "模型\N{PILE OF POO}",
    "\n\r\t\x1b[31m\\",
    "",
]


def answer(model: str, milliseconds: int) -> dict[str, Any]:
    """The last line of a stream of Ollama's."""
    return {
        "model": model,
        "message": {"role": "assistant", "content": "secret-canary"},
        "done": True,
        "done_reason": "stop",
        "total_duration": milliseconds * 1_000_000,
        "load_duration": milliseconds * 10_000,
        "prompt_eval_count": 26,
        "prompt_eval_duration": milliseconds * 100_000,
        "eval_count": 100,
        "eval_duration": milliseconds * 800_000,
    }


def work(mc: MetricsCollector, rng: random.Random, names: list[str]) -> None:
    """Some of everything."""
    for name in names:
        for _ in range(rng.randrange(4)):
            mc.record_response(
                answer(name or "empty", 1 + rng.randrange(5_000)),
                latency=6 + rng.random(),
            )
            mc.record_latency(name, rng.lognormvariate(-1, 1))
            mc.record_tokens(name, rng.randrange(1_000))
        if not rng.randrange(3):
            mc.record_error(name, rng.choice([ErrorTimeout(), ValueError("canary")]))
    mc.record_task_completion(bool(rng.randrange(2)), rng.random() * 1e3)
