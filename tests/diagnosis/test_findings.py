# SPDX-License-Identifier: MIT
"""Each finding: a scenario that shows it, and one close to it that must not.

Scenarios are finished answers of Ollama, recorded as an agent's calls are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import ometrics
from ometrics import MetricsCollector
from ometrics._calls import Call
from ometrics.diagnosis import checks
from ometrics.diagnosis.kinds import KINDS
from ometrics.ollama import LoadedModel
from ometrics.rules import Stalls
from ometrics.rules.watch import Watch
from ometrics.testing import FakeClock, chat_done

MODEL = "llama3.2"
MS = 1_000_000


def answer(**changes: Any) -> dict[str, Any]:
    """The last line of a healthy answer: a second, most of it decoding."""
    fields: dict[str, Any] = {
        "model": MODEL,
        "total_duration": 1000 * MS,
        "load_duration": 20 * MS,
        "prompt_eval_count": 400,
        "prompt_eval_duration": 100 * MS,
        "eval_count": 80,
        "eval_duration": 870 * MS,
    }
    return chat_done(**(fields | changes))


def healthy(count: int = 50) -> MetricsCollector:
    """A collector of answers that nothing is wrong with."""
    return collected([answer()] * count)


def collected(
    answers: Iterable[dict[str, Any]], wait: float = 0.005
) -> MetricsCollector:
    """A collector of these answers, each of which took a bit longer on the network."""
    collector = MetricsCollector(clock=FakeClock())
    for done in answers:
        took = timedelta(seconds=done["total_duration"] / 1e9 + wait)
        collector.record_response(done, latency=took)
    return collector


def with_errors(code: str, count: int, good: int = 50) -> MetricsCollector:
    """Healthy answers and so many failures."""
    collector = healthy(good)
    for _ in range(count):
        collector.record_error(MODEL, code)
    return collector


def loading(cold: int, warm: int, seconds: int = 8) -> MetricsCollector:
    """Answers before which the model had to be loaded, and others."""
    slow = answer(
        total_duration=(1000 + 1000 * seconds) * MS,
        load_duration=1000 * seconds * MS,
    )
    return collected([slow] * cold + [answer()] * warm)


def queued(milliseconds: int) -> MetricsCollector:
    """Answers that waited on the server."""
    return collected([answer(total_duration=(990 + milliseconds) * MS)] * 50)


def prompts(
    cached: int | None, prefill: int = 900, also: Iterable[dict[str, Any]] = ()
) -> MetricsCollector:
    """Answers to long prompts, and others."""
    fields = {"prompt_eval_count": 4000, "prompt_eval_duration": prefill * MS}
    if cached is not None:
        fields["prompt_eval_cached_count"] = cached
    long = answer(total_duration=(900 + prefill) * MS, **fields)
    return collected([long] * 30 + [*also] * 30)


def tail(slow: int, seconds: float = 30.0) -> MetricsCollector:
    """Some requests that take very long."""
    collector = MetricsCollector()
    for index in range(200):
        collector.record_latency(MODEL, seconds if index < slow else 0.5)
    return collector


def models(seconds: float) -> MetricsCollector:
    """Two models, one of which takes so long."""
    collector = MetricsCollector()
    for _ in range(40):
        collector.record_latency(MODEL, seconds)
        collector.record_latency("other", 1.0)
    return collector


def contexts(*tokens: int) -> MetricsCollector:
    """Prompts of these lengths among shorter ones."""
    long = [answer(prompt_eval_count=count) for count in tokens]
    return collected(long * 8 + [answer()] * 34)


def stalling(count: int, good: int = 47) -> MetricsCollector:
    """Healthy answers, and streams that are silent for a minute before they go on."""
    clock = FakeClock()
    collector = MetricsCollector(clock=clock)
    for _ in range(good):
        collector.record_response(answer(), latency=timedelta(seconds=1))
    watch = Watch(collector, [], stalls=Stalls(times=None), clock=clock)
    for _ in range(count):
        call = collector.start_call(MODEL)
        call.chunk()
        clock.advance(60)
        watch.step()
        call.chunk()
        call.end("success")
    return collector


def retrying(again: int, first: int) -> MetricsCollector:
    """Healthy answers, and calls of a client that says which are retries."""
    clock = FakeClock()
    collector = healthy(10)
    for is_retry in [True] * again + [False] * first:
        call = Call(collector, MODEL, "chat", "openai")
        call.retry(is_retry)
        clock.advance(1)
        call.end("success")
    return collector


def by_openai(connect: float = 0.0, reason: str = "stop") -> MetricsCollector:
    """Calls of two seconds to a server that tells no durations."""
    clock = FakeClock()
    collector = MetricsCollector(clock=clock)
    for _ in range(30):
        call = Call(collector, MODEL, "chat", "openai")
        clock.advance(2)
        call.end("success", done_reason=reason, connect=int(connect * 1e9))
    return collector


class Scenario(NamedTuple):
    """
    One row of the table.

    Attributes:
        finding: Which, or that it must not be: after `not`.
        story: What happens.
        make: The collector that saw it.
        options: Of `diagnose`.
    """

    finding: str
    story: str
    make: Callable[[], MetricsCollector]
    options: Callable[[], dict[str, Any]] = dict


def on_gpu(share: float, **changes: Any) -> Callable[[], dict[str, Any]]:
    """What the server says of the model."""
    fields = {"name": f"{MODEL}:latest", "size": 1000, "size_vram": int(1000 * share)}
    return lambda: {"loaded": [LoadedModel(**(fields | changes))]}


def before(rate: float, tokens: int = 80) -> Callable[[], dict[str, Any]]:
    """An earlier time with another speed; now it is 92 tokens a second."""
    duration = int(tokens / rate * 1e9)
    done = answer(
        eval_count=tokens, eval_duration=duration, total_duration=duration + 130 * MS
    )
    return lambda: {"earlier": collected([done] * 50)}


TABLE = (
    Scenario("answers-cut", "one answer in five ends at its limit",
        lambda: collected([answer(done_reason="length")] * 10 + [answer()] * 40)),
    Scenario("answers-cut", "all do, by OpenAI's interface",
        lambda: by_openai(reason="length")),
    Scenario("not answers-cut", "one answer in fifty does",
        lambda: collected([answer(done_reason="length")] * 1 + [answer()] * 49)),
    Scenario("not answers-cut", "four of four do: too few to call it a habit",
        lambda: collected([answer(done_reason="length")] * 4)),
    Scenario("failing", "a burst of refused connections",
        lambda: with_errors("CONNECTION_FAILED", 20)),
    Scenario("not failing", "two errors in fifty", lambda: with_errors("HTTP_500", 2)),
    Scenario("not failing", "a burst of timeouts, which has its own finding",
        lambda: with_errors("TIMEOUT", 20)),
    Scenario("timeouts", "one request in six is given up",
        lambda: with_errors("TIMEOUT", 10)),
    Scenario("not timeouts", "two of a hundred are",
        lambda: with_errors("TIMEOUT", 2, good=98)),
    Scenario("cold-starts", "every third call loads the model for 8 s",
        lambda: loading(10, 20)),
    Scenario("not cold-starts", "the first call of thirty does",
        lambda: loading(1, 29)),
    Scenario("not cold-starts", "two of three hundred do: a few percent of the time",
        lambda: loading(2, 298)),
    Scenario("waiting", "two seconds of three in a queue", lambda: queued(2000)),
    Scenario("not waiting", "a tenth of a second of one", lambda: queued(110)),
    Scenario("connecting", "a second of two, by OpenAI's interface",
        lambda: by_openai(1.0)),
    Scenario("not connecting", "60 ms of two seconds of which no more is known",
        lambda: by_openai(0.06)),
    Scenario("network", "a second on the way",
        lambda: collected([answer()] * 30, wait=1.0)),
    Scenario("not network", "5 ms on the way, of answers of 10 ms",
        lambda: collected([answer(
            total_duration=10 * MS, load_duration=0, prompt_eval_duration=2 * MS,
            eval_duration=8 * MS)] * 30)),
    Scenario("cache-misses", "4,000 tokens, none from the cache", lambda: prompts(0)),
    Scenario("not cache-misses", "most come from the cache", lambda: prompts(3600)),
    Scenario("not cache-misses", "an old server that does not say",
        lambda: prompts(None)),
    Scenario("not cache-misses", "one of two servers does not say",
        lambda: prompts(0, also=[answer(prompt_eval_count=8000)])),
    Scenario("not cache-misses", "none from the cache, but reading takes no time",
        lambda: prompts(0, prefill=40)),
    Scenario("prompts-cut", "one prompt in four fills the context of 4,096 tokens",
        lambda: contexts(4096, 4090), on_gpu(1, context_length=4096)),
    Scenario("not prompts-cut", "prompts of three quarters of it",
        lambda: contexts(3072, 3072), on_gpu(1, context_length=4096)),
    Scenario("not prompts-cut", "one prompt of fifty is as long",
        lambda: collected([answer(prompt_eval_count=4096)] + [answer()] * 49),
        on_gpu(1, context_length=4096)),
    Scenario("not prompts-cut", "the context length is not known",
        lambda: contexts(4096, 4090)),
    Scenario("decode-slower", "half as fast as before", healthy, before(184)),
    Scenario("not decode-slower", "a tenth slower", healthy, before(101)),
    Scenario("not decode-slower", "half as fast, by ten answers of two tokens",
        lambda: collected([answer(eval_count=2, eval_duration=44 * MS)] * 10),
        before(92)),
    Scenario("on-the-cpu", "nothing of it in GPU memory", healthy, on_gpu(0)),
    Scenario("on-the-cpu", "60 % of it in GPU memory", healthy, on_gpu(0.6)),
    Scenario("not on-the-cpu", "all of it", healthy, on_gpu(1)),
    Scenario("not on-the-cpu", "the server does not say", healthy,
        on_gpu(0, size_vram=None)),
    Scenario("not on-the-cpu", "it is another model's", healthy,
        on_gpu(0, name="qwen3:latest")),
    Scenario("stalled", "three streams of fifty stop for a minute",
        lambda: stalling(3)),
    Scenario("not stalled", "one does", lambda: stalling(1)),
    Scenario("not stalled", "three of two hundred do", lambda: stalling(3, good=197)),
    Scenario("retries", "one call in five is a retry", lambda: retrying(10, 40)),
    Scenario("not retries", "one in fifty is", lambda: retrying(1, 49)),
    Scenario("not retries", "the client does not say which are",
        lambda: retrying(0, 0)),
    Scenario("evictions", "thrown out of memory, and loaded again, five times",
        healthy, on_gpu(1, evictions=5, loads=5)),
    Scenario("not evictions", "loaded five times, each after it had expired",
        healthy, on_gpu(1, evictions=0, loads=5)),
    Scenario("not evictions", "it happened once",
        healthy, on_gpu(1, evictions=1, loads=1)),
    Scenario("long-tail", "five of two hundred take 60 x as long", lambda: tail(5)),
    Scenario("not long-tail", "one of two hundred does", lambda: tail(1)),
    Scenario("not long-tail", "five take twice as long", lambda: tail(5, 1.0)),
    Scenario("takes-most-time", "one of two models takes 90 %", lambda: models(9.0)),
    Scenario("not takes-most-time", "it takes two thirds", lambda: models(2.0)),
    Scenario("not takes-most-time", "there is only one", healthy),
    Scenario("few-requests", "three calls", lambda: healthy(3)),
    Scenario("not few-requests", "fifty", healthy),
    Scenario("not few-requests", "none at all", lambda: healthy(0)),
)  # fmt: skip


@pytest.mark.parametrize(
    "scenario", TABLE, ids=[f"{row.finding}: {row.story}" for row in TABLE]
)
def test_scenario(scenario: Scenario) -> None:
    """A finding is there where it must be, and is not where it must not."""
    with scenario.make() as collector:
        found = ometrics.diagnose(collector, **scenario.options())

    kinds = [finding.kind for finding in found]
    absent = scenario.finding.startswith("not ")
    assert absent is (scenario.finding.removeprefix("not ") not in kinds), kinds


@pytest.mark.parametrize(
    "scenario",
    [row for row in TABLE if not row.finding.startswith("not ")],
    ids=lambda row: row.story,
)
def test_a_scenario_shows_one_problem(scenario: Scenario) -> None:
    """No scenario of one problem is taken for another as well."""
    with scenario.make() as collector:
        found = ometrics.diagnose(collector, **scenario.options())

    assert [] == [
        finding.kind
        for finding in found
        if finding.problem and finding.kind != scenario.finding
    ]


def test_a_healthy_model_has_nothing() -> None:
    """Fifty good answers are no news, even if all is known."""
    with healthy() as collector:
        found = ometrics.diagnose(
            collector, earlier=healthy(), loaded=on_gpu(1)()["loaded"]
        )

    assert [] == found


def test_every_kind_is_described_once() -> None:
    """What the checks can find is what `KINDS` and the documentation list."""
    home = Path(checks.__file__).parent
    source = "".join(path.read_text(encoding="utf-8") for path in home.glob("*.py"))
    found = dict.fromkeys(re.findall(r'kind="([a-z-]+)"', source))

    assert sorted(found) == sorted(KINDS)
    for scenario in TABLE:
        if not scenario.finding.startswith("not "):
            kinds = ometrics.diagnose(scenario.make(), **scenario.options())
            assert all(f.problem is KINDS[f.kind].problem for f in kinds)


def test_every_check_has_both_kinds() -> None:
    """The table has a row that shows each finding, and one close to it."""
    kinds = {row.finding for row in TABLE}
    documented = {
        *("failing", "timeouts", "hung-calls", "answers-cut", "on-the-cpu"),
        *("cold-starts", "waiting", "network", "cache-misses", "decode-slower"),
        *("long-tail", "prompts-cut", "connecting"),
        *("stalled", "retries", "evictions"),
    }
    assert len(checks.CHECKS) == len(documented)
    for kind in documented - {"hung-calls"}:  # in a test of its own
        assert {kind, f"not {kind}"} <= kinds


@pytest.mark.parametrize(
    ("age", "longest", "found"),
    [(300.0, 1.0, True), (30.0, 1.0, False), (300.0, 200.0, False), (90.0, None, True)],
)
def test_hung_calls(age: float, longest: float | None, found: bool) -> None:
    """A call is hung when it is old, and far older than any that ended."""
    clock = FakeClock()
    with MetricsCollector(clock=clock) as collector:
        for _ in range(0 if longest is None else 30):
            done = answer(total_duration=int((longest or 0) * 1e9))
            collector.record_response(done, latency=longest)
        call = collector.start_call(MODEL)
        clock.advance(age)
        kinds = [finding.kind for finding in ometrics.diagnose(collector)]
        del call

    assert found is ("hung-calls" in kinds)


def test_loads_that_were_seen_make_it_certain() -> None:
    """Where the server was seen to load the model, nothing else can have been it."""
    with loading(10, 20) as collector:
        (guess,) = ometrics.diagnose(collector)
        (seen,) = ometrics.diagnose(collector, **on_gpu(1, loads=9)())

    assert ("likely", "certain") == (guess.certainty, seen.certainty)


def test_a_finding_reads_well() -> None:
    """It says which model, what, by which numbers, how surely, and what to do."""
    with with_errors("CONNECTION_FAILED", 20) as collector:
        (finding,) = ometrics.diagnose(collector)

    assert (
        "llama3.2: requests fail, most with CONNECTION_FAILED (certain)\n"
        "  because: 28.6% of the requests; failures 20; CONNECTION_FAILED 20\n"
        "  do: is the server running, and at this address?"
    ) == str(finding)


def test_a_hostile_name_is_harmless() -> None:
    """What stands in a model's name does nothing to a terminal."""
    collector = MetricsCollector()
    collector.record_latency("a\x1b[2J", 1.0)

    assert "\x1b" not in str(ometrics.diagnose(collector)[0])


def test_it_takes_a_window() -> None:
    """A snapshot is as good as a source."""
    with with_errors("HTTP_500", 20) as collector:
        assert ["failing"] == [
            finding.kind for finding in ometrics.diagnose(collector.snapshot())
        ]
