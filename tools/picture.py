# SPDX-License-Identifier: MIT
"""Make the README's picture: the live table of a real run, as an SVG.

    python tools/picture.py                 docs/live.svg, by the embedded engine
    python tools/picture.py --scripted      the same without a model: a scripted server
    python tools/picture.py -o other.svg

The demo's team works on real inference; when enough of it is done, what `ometrics demo`
shows at that instant is drawn.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, Group
from rich.text import Text

import ometrics
from ometrics.demo.server import EngineServer, find_server
from ometrics.demo.team import NO_MODEL, Team
from ometrics.ollama import instrument, uninstrument
from ometrics.testing import (
    Delay,
    Request,
    ScriptedOllama,
    Status,
    Step,
    chat_chunk,
    chat_done,
    generate_chunk,
    generate_done,
)
from ometrics.view.live import LiveTable

OUTPUT = Path(__file__).parents[1] / "docs" / "live.svg"
COLUMNS = 116
TASKS = 10
MOMENT = 8  # tasks done when the picture is taken
WORDS = ("Bees", " make", " honey", " from", " the", " nectar", " of", " flowers", ".")


async def watch(team: Team, table: LiveTable, console: Console) -> None:
    """Let the team work, the table see each second, and draw it at the moment."""
    work = asyncio.ensure_future(team.run())
    while team.completed < MOMENT and not work.done():
        console.begin_capture()  # only what is drawn at the moment is kept
        console.print(table)
        console.end_capture()
        await asyncio.sleep(0.25)
    console.export_text(clear=True)
    console.print(Text("$ ometrics demo\n", style="bold"))
    console.print(Group(table, team))
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def answer(request: Request) -> Iterator[Mapping[str, Any] | Step]:
    """Speak at about the speed of a small model."""
    chat = request.path == "/api/chat"
    chunk, done = (chat_chunk, chat_done) if chat else (generate_chunk, generate_done)
    model = request.json["model"]
    if model == NO_MODEL:
        yield Status(404, {"error": f"model '{model}' not found"})
        return
    yield Delay(0.12)
    for word in WORDS if request.stream else ():
        yield Delay(0.03)
        yield chunk(word, model=model)
    text = "" if request.stream else "".join(WORDS)
    yield done(
        text,
        model=model,
        load_duration=20_000_000,
        prompt_eval_duration=90_000_000,
        eval_count=len(WORDS),
        eval_duration=len(WORDS) * 30_000_000,
    )


@contextmanager
def scripted() -> Iterator[EngineServer]:
    """A server that needs no model."""
    with ScriptedOllama(models=["llama3.2"]) as server:
        server.script("/api/chat", answer)
        server.script("/api/generate", answer)
        yield EngineServer("llama3.2", server.url, "a scripted server")


def svg(console: Console) -> str:
    """What the console recorded; it loads no font from anywhere."""
    unwanted = r"@font-face \{\{.*?\}\}\s*|<!--.*?-->\s*"
    template = re.sub(unwanted, "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(
        title="ometrics", code_format=template, unique_id="ometrics"
    )


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scripted", action="store_true", help="need no model")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    console = Console(
        record=True,
        width=COLUMNS,
        height=40,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )
    collector = instrument(ometrics.MetricsCollector())
    where = (
        scripted()
        if options.scripted
        else find_server(engine=True, model=None, progress=print)
    )
    with where as server:
        team = Team(
            server,
            report=collector.record_task_completion,
            log=print,
            tasks=TASKS,
            seconds=120,
        )
        asyncio.run(watch(team, LiveTable(collector), console))
    uninstrument()
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(svg(console), encoding="utf-8")
    print(options.output)


if __name__ == "__main__":
    main()
