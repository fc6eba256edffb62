# SPDX-License-Identifier: MIT
"""The demo's agents: a planner, two workers, a reviewer, and an intern who errs.

The planner and the reviewer use the blocking client, each in a thread; the workers use
the asyncio client. Nothing in here knows of metrics but the outcome of each task, which
the agents report themselves: all else is seen by the instrumented client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from ometrics.demo.server import EngineServer
from ometrics.view.escape import harmless
from ometrics.view.units import duration

TOPICS: Final = (
    *("honey", "rivers", "bread", "lighthouses", "bicycles", "winter"),
    *("maps", "coffee", "clocks", "bridges", "whales", "kites"),
)
WORKERS: Final = 2
AT_ONCE: Final = 2  # tasks
TOKENS: Final = 40  # of an answer at most: short tasks show more
PATIENCE: Final = 0.03  # seconds that the intern gives a server, which is too few
CHUNKS_READ: Final = 3  # before the intern loses interest
NO_MODEL: Final = "no-such-model:latest"


@dataclass
class TeamMember:
    """
    One member of the team, as the view shows it.

    Attributes:
        name: What it is called.
        doing: Its work, or nothing.
        text: What the model said so far.
    """

    name: str
    doing: str = ""
    text: str = ""


@dataclass
class Team:
    """
    Works on topics until there are enough or the time is up.

    Args:
        server: Where inference happens.
        report: Called at the end of each task with its success and milliseconds.
        log: Called with one line about each task, for people.
        tasks: How many tasks.
        seconds: How long at most.

    Thread-safety:
        Agents are written by one thread at a time; the view may read them meanwhile.
    """

    server: EngineServer
    report: Callable[[bool, float], None]
    log: Callable[[Text], None]
    tasks: int
    seconds: float
    completed: int = 0
    stopped: bool = False
    planner: TeamMember = field(default_factory=lambda: TeamMember("planner"))
    workers: list[TeamMember] = field(
        default_factory=lambda: [TeamMember(f"worker {i + 1}") for i in range(WORKERS)]
    )
    reviewer: TeamMember = field(default_factory=lambda: TeamMember("reviewer"))
    intern: TeamMember = field(default_factory=lambda: TeamMember("intern"))

    @property
    def agents(self) -> list[TeamMember]:
        """All of them."""
        return [self.planner, *self.workers, self.reviewer, self.intern]

    async def run(self) -> None:
        """Do the work."""
        self._client = self.server.client(timeout=self.seconds + 10)
        self._async_client = self.server.async_client()
        self._free = {
            name: asyncio.Lock() for name in ("planner", "workers", "reviewer")
        }
        room = asyncio.Semaphore(AT_ONCE)
        jobs = [self._task(TOPICS[i % len(TOPICS)], room) for i in range(self.tasks)]
        running = [asyncio.ensure_future(job) for job in (*jobs, self._mishaps())]
        try:
            await asyncio.wait(running, timeout=self.seconds)
        finally:
            self.stopped = True
            for job in running:
                job.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            close = getattr(self._async_client, "close", None)
            if close is not None:  # older versions have none
                await close()

    async def _task(self, topic: str, room: asyncio.Semaphore) -> None:
        """Plan, work, review."""
        async with room, self._counted(topic) as said:
            async with self._free["planner"], self._busy(self.planner, topic):
                questions = await asyncio.to_thread(self._plan, topic)
            async with self._free["workers"]:
                pairs = zip(self.workers, questions, strict=True)
                await asyncio.gather(*(self._answer(w, q) for w, q in pairs))
                answers = [worker.text for worker in self.workers]
            async with self._free["reviewer"], self._busy(self.reviewer, topic):
                said.append(await asyncio.to_thread(self._review, topic, answers))

    def _plan(self, topic: str) -> list[str]:
        """As many questions as there are workers; in a thread."""
        prompt = f"Write two short questions about {topic}, one per line."
        response = self._client.chat(
            self.server.model, [_user(prompt)], options=_options(TOKENS)
        )
        self.planner.text = response.message.content or ""
        lines = [line.strip(" -*0123456789.") for line in self.planner.text.split("\n")]
        questions = [line for line in lines if line][:WORKERS]
        spare = [f"What is the best thing about {topic}?", f"Who needs {topic}?"]
        return (questions + spare)[:WORKERS]

    async def _answer(self, worker: TeamMember, question: str) -> None:
        """One worker's answer, streamed; in the event loop."""
        async with self._busy(worker, question):
            worker.text = ""
            prompt = f"{question} Answer in one short sentence."
            async for chunk in await self._async_client.chat(
                self.server.model,
                [_user(prompt)],
                stream=True,
                options=_options(TOKENS),
            ):
                worker.text += chunk.message.content or ""

    def _review(self, topic: str, answers: list[str]) -> str:
        """The reviewer's verdict, streamed; in a thread."""
        self.reviewer.text = ""
        prompt = f"Sum up in one short sentence about {topic}: {' '.join(answers)}"
        for chunk in self._client.generate(
            self.server.model, prompt, stream=True, options=_options(TOKENS)
        ):
            self.reviewer.text += chunk.response or ""
            if self.stopped:
                break
        return self.reviewer.text

    # --- what goes wrong, so that errors are seen

    async def _mishaps(self) -> None:
        """One of each kind, with time between them to see each happen."""
        for title, mishap in (
            ("asks for a model that is not there", self._ask_for_nothing),
            ("stops reading in the middle", self._lose_interest),
            ("does not wait for the answer", self._be_impatient),
        ):
            await asyncio.sleep(1.0)
            try:
                async with self._busy(self.intern, title):
                    await asyncio.to_thread(mishap)
            except Exception as error:  # noqa: BLE001 - any failure is what we want
                self._log("✗", "red", "the intern", f"{title}: {_describe(error)}")
            else:
                self._log("✗", "yellow", "the intern", title)

    def _ask_for_nothing(self) -> None:
        self._client.chat(NO_MODEL, [_user("Hello?")])

    def _lose_interest(self) -> None:
        stream: Iterator[Any] = self._client.chat(
            self.server.model, [_user("Tell me a long story.")], stream=True
        )
        for i, _ in enumerate(stream, 1):
            if i == CHUNKS_READ:
                break

    def _be_impatient(self) -> None:
        impatient = self.server.client(timeout=PATIENCE)
        impatient.chat(self.server.model, [_user("Think about everything.")])

    # --- reports

    @asynccontextmanager
    async def _counted(self, topic: str) -> AsyncIterator[list[str]]:
        """Report a task's end and log what was said in it."""
        said: list[str] = []
        begin = time.monotonic()
        try:
            yield said
        except Exception as error:  # noqa: BLE001 - one task's failure is not the demo's
            self.report(False, (time.monotonic() - begin) * 1e3)
            self._log("✗", "red", topic, _describe(error))
        else:
            seconds = time.monotonic() - begin
            self.report(True, seconds * 1e3)
            self.completed += 1
            self._log("✓", "green", topic, f"{duration(seconds)}  {' '.join(said)}")

    def _log(self, mark: str, colour: str, who: str, what: str) -> None:
        line = Text.assemble((mark, colour), " ", (who, "bold"), "  ", _line(what))
        self.log(line)

    @asynccontextmanager
    async def _busy(self, agent: TeamMember, doing: str) -> AsyncIterator[None]:
        agent.doing = doing
        try:
            yield
        finally:
            agent.doing = ""

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Each agent, and the end of what it wrote last."""
        del console
        yield ""
        table = Table.grid(padding=(0, 2))
        for _ in range(2):
            table.add_column(no_wrap=True, overflow="ellipsis")
        room = max(options.max_width - 14, 1)
        for agent in self.agents:
            words = _line(agent.doing if agent is self.intern else agent.text)
            style = "" if agent.doing else "dim"
            name = Text(f"{'●' if agent.doing else '○'} {agent.name}", style or "cyan")
            table.add_row(name, Text(words[-room:], style))
        yield table


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _options(tokens: int) -> dict[str, Any]:
    return {"num_predict": tokens, "temperature": 0.7}


def _line(text: str) -> str:
    """Text of a model or an error in one harmless line."""
    return harmless(" ".join(text.split()))


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
