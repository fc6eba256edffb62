# SPDX-License-Identifier: MIT
"""The demo's troubles: a stall, a prompt that is cut and a burst of errors, all named.

No server does this when told to, so here a scripted one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import ollama
from rich.console import RenderableType
from rich.text import Text

import ometrics.ollama
from ometrics.cli import findings
from ometrics.collector import MetricsCollector
from ometrics.diagnosis import diagnose
from ometrics.rules import Stalls
from ometrics.rules.words import sentence
from ometrics.testing import (
    Delay,
    Request,
    ScriptedOllama,
    Status,
    chat_chunk,
    chat_done,
    chat_response,
    ps_response,
)

CONTEXT: Final = 4096  # tokens, as the scripted server says
CALLS: Final = 20
PAUSE: Final = 2.0  # seconds of a stream that stalls
LIMIT: Final = 0.5  # that it may

FORGETFUL, SLEEPY, BROKEN = "forgetful:1b", "sleepy:1b", "broken:1b"


def provoke(log: Callable[[RenderableType], None]) -> None:
    """
    Have three things go wrong, and show what is said of them.

    Args:
        log: Called with what people are to see.
    """
    log(Text("Three things go wrong, at a server that does so by script:", "bold"))
    models = [FORGETFUL, SLEEPY, BROKEN]
    with (
        ScriptedOllama(models=models) as server,
        MetricsCollector() as collector,
        ollama.Client(host=server.url) as client,
    ):
        server.script("/api/chat", _misbehave)
        server.script("/api/ps", [_on_the_gpu(models)])
        ometrics.ollama.instrument(collector, client=client)
        watch = collector.watch([], stalls=Stalls(chunk=LIMIT), notify=[_say(log)])
        for _ in client.chat(SLEEPY, _PROMPT, stream=True):
            pass
        watch.step()
        watch.close()
        for model in [FORGETFUL, BROKEN] * CALLS:
            with suppress(ollama.ResponseError):  # it is counted
                client.chat(model, _PROMPT)
        residency = ometrics.ollama.Residency(server.url)
        residency.poll()
        found = diagnose(residency.added_to(collector.snapshot()))
        for finding in findings.problems(found):
            log(finding)


_PROMPT: Final = [{"role": "user", "content": "Remember all of this: ..."}]


def _misbehave(request: Request) -> Iterator[Any]:
    """What the server does, by model."""
    model = request.json["model"]
    if model == BROKEN:
        yield Status(503, {"error": "server busy, please try again"})
    elif model == SLEEPY:
        yield from (chat_chunk("Once", model=model), Delay(PAUSE))
        yield chat_done(model=model)
    else:
        yield chat_response("Yes.", model=model, prompt_eval_count=CONTEXT)


def _on_the_gpu(models: Sequence[str]) -> dict[str, Any]:
    """What `/api/ps` says of models that have all the memory they want."""
    answer = ps_response(models)
    for row in answer["models"]:
        row |= {"size_vram": row["size"], "context_length": CONTEXT}
    return answer


def _say(log: Callable[[RenderableType], None]) -> Callable[[Any], None]:
    def say(alert: Any) -> None:
        style = "bold red" if alert.state == "firing" else "green"
        log(Text(f"{alert.state} {sentence(alert)}", style))

    return say
