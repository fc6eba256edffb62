# SPDX-License-Identifier: MIT
"""Stalls: what is wrong with calls that have not ended, while it is.

A rule is about numbers of calls that ended, and a call that hangs is in none of them.
`Stalls` are the limits, `StallWatch` holds the calls in flight against them; each of
its four numbers is a `Condition`, so that incidents begin, end and are told of as those
of rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from ometrics._in_flight import calls_in_flight, count_stalled
from ometrics.clock import Clock
from ometrics.collector import MetricsCollector
from ometrics.events import StalledCall
from ometrics.models import OLLAMA, PerformanceMetrics
from ometrics.rules import limits
from ometrics.rules.conditions import Column, Condition, EvaluatedWindows
from ometrics.rules.rule import RuleError
from ometrics.sources import Source

# Successes below which a 99th percentile says little.
_ENOUGH: Final = 20
# Calls more than at the beginning that make a queue of what grows.
_GROWN: Final = 10
# Key and model of a group, and limits that calls of it are past.
Past: TypeAlias = "tuple[int, str, float | None, float | None, float | None]"
# Seconds for which a model's 99th percentile is used again.
_HISTORY_LASTS: Final = 10.0

STREAM, TOO_LONG = "stalled stream", "call takes too long"
NO_ANSWER, QUEUE = "no answer", "queue only grows"
NAMES: Final = (STREAM, TOO_LONG, NO_ANSWER, QUEUE)
_METRICS: Final = {
    STREAM: "time since the last chunk",
    TOO_LONG: "age in 99th percentiles",
    NO_ANSWER: "time without an answer",
    QUEUE: "time that calls in flight grew",
}


@dataclass(frozen=True)
class Stalls:
    """
    Limits past which calls in flight have stalled, in seconds or as `"30s"`.

        mc.watch(rules, stalls=Stalls(chunk="10s"))

    Attributes:
        chunk: How long a stream may be silent after its first chunk.
        answer: How long a call may wait for its first chunk, or for its end if it is
            no stream, while no call of its model ends or gets a chunk: the server
            accepts and does not answer.
        times: How many times the 99th percentile of its model and operation, over 20
            successes or more, a call may take.
        least: How old a call must be before that counts.
        queue: How long a model's calls in flight may only become more: by ten, to
            twice as many, and never fewer in between.

    `None` in place of `chunk`, `answer`, `times` or `queue` looks for no such thing.

    Raises:
        RuleError: A limit is not above zero; the message names it.
    """

    chunk: str | float | None = 30.0
    answer: str | float | None = 120.0
    times: float | None = 3.0
    least: str | float = 30.0
    queue: str | float | None = 60.0

    def __post_init__(self) -> None:
        """Bring all limits to seconds."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, _limit(field.name, value))
        if self.least is None:
            raise RuleError(
                "'least' must be a time; 0.1s for none to speak of", "least"
            )


def _limit(name: str, value: object) -> float:
    try:
        limit = limits.number(value) if name == "times" else limits.seconds(value)
    except ValueError as error:
        raise RuleError(str(error), name) from None
    if limit <= 0:
        raise RuleError(f"{name!r} {value!r} must be above zero", name)
    return limit


class _Group(NamedTuple):
    """A row of `calls_in_flight`: the calls of a model, operation and provider."""

    key: int
    model: str
    operation: str
    provider: str
    calls: int
    oldest_age: float
    oldest_silence: float | None = None
    silent_age: float | None = None
    silence: float | None = None
    waiting: float | None = None
    heard: float | None = None


class _Values(dict[str, float]):
    """Model -> value. A model without calls in flight has no stall: that is known."""

    def get(self, model: str, default: object = None) -> float:
        """The value; 0.0 for all others."""
        del default
        return super().get(model, 0.0)


class StallWatch:
    """
    Holds the calls in flight against the limits.

    Args:
        source: Whose calls. They count as stalled in a collector of this process only:
            who reads others writes nothing there.
        stalls: The limits.
        clock: Where to read the time.

    Attributes:
        conditions: What an `Engine` watches, as of the last `look`.

    Thread-safety:
        For one thread.
    """

    def __init__(self, source: Source, stalls: Stalls, clock: Clock) -> None:
        self._source = source
        self._stalls = stalls
        self._limits: dict[str, float | None] = {
            name: None if limit is None else float(limit)
            for name, limit in zip(
                NAMES,
                (stalls.chunk, stalls.times, stalls.answer, stalls.queue),
                strict=True,
            )
        }
        self._clock = clock
        self._values: dict[str, _Values] = {name: _Values() for name in NAMES}
        # The worst call of a model, kept for the end of its incident.
        self._worst: dict[tuple[str, str], StalledCall] = {}
        self._history: dict[int, tuple[float, float | None]] = {}
        self._queues: dict[str, _Queue] = {}
        self._models: Mapping[str, PerformanceMetrics] = {}
        self.conditions = list(self._conditions())

    def _conditions(self) -> Iterator[Condition]:
        for name, limit in self._limits.items():
            if limit is not None:
                yield Condition(
                    name=name,
                    severity="warning",
                    metric=_METRICS[name],
                    unit="" if name == TOO_LONG else "s",
                    limit=limit,
                    clear=limit,
                    read=partial(self._read, name),
                    call=partial(self._call, name),
                )

    def _read(self, name: str, windows: EvaluatedWindows) -> Column:
        del windows
        return self._values[name]

    def _call(self, name: str, model: str) -> StalledCall | None:
        return self._worst.get((name, model))

    def look(self) -> None:
        """Read the calls in flight, and count those that have stalled."""
        now = self._clock.monotonic()
        groups = self._groups()
        keys = {group.key for group in groups}
        self._history = {k: v for k, v in self._history.items() if k in keys}
        self._values = {name: _Values() for name in NAMES}
        stalled = [
            (group.key, group.model, *past)
            for group in groups
            if any(past := self._past_limits(group, now))
        ]
        if stalled:
            self._count(stalled)
        if self._limits[QUEUE] is not None:
            self._look_at_queues(groups, now)

    def _groups(self) -> list[_Group]:
        if isinstance(self._source, MetricsCollector):
            return [_Group._make(row) for row in calls_in_flight(self._source)]
        self._models = self._source.snapshot().models
        return [
            _Group(
                key=hash((name, call.operation, call.provider)),
                model=name,
                operation=call.operation,
                provider=call.provider,
                calls=call.in_flight,
                oldest_age=call.oldest_in_flight_seconds or 0.0,
                oldest_silence=call.oldest_silence_seconds,
                silent_age=call.silent_in_flight_seconds,
                silence=call.longest_silence_seconds,
                waiting=call.longest_wait_seconds,
                heard=call.newest_chunk_seconds,
            )
            for name, model in self._models.items()
            for call in model.calls.values()
            if call.in_flight
        ]

    def _metrics(self, model: str) -> PerformanceMetrics | None:
        if isinstance(self._source, MetricsCollector):
            return self._source.get_model_metrics(model)
        return self._models.get(model)

    def _count(self, stalled: list[Past]) -> None:
        """Count them, where they are this process's to count."""
        if isinstance(self._source, MetricsCollector):
            count_stalled(self._source, stalled)

    def _past_limits(
        self, group: _Group, now: float
    ) -> tuple[float | None, float | None, float | None]:
        """The limits that calls of a group are past: age, silence, waiting."""
        silence = self._past(
            STREAM, group, group.silence, group.silent_age, group.silence
        )
        waiting = self._past(NO_ANSWER, group, self._quiet(group), group.waiting, None)
        usual = self._usual(group, now)
        times = None if usual is None else group.oldest_age / usual
        oldest = group.oldest_age, group.oldest_silence
        age = self._past(TOO_LONG, group, times, *oldest)
        if age is not None and usual is not None:
            age = max(age * usual, float(self._stalls.least))
        return age, silence, waiting

    def _past(
        self,
        name: str,
        group: _Group,
        value: float | None,
        age: float | None,
        silence: float | None,
    ) -> float | None:
        """
        Take a value over, if it is the worst of its model.

        Returns:
            The limit, if it is past that.
        """
        limit, values = self._limits[name], self._values[name]
        if value is None or age is None or limit is None:
            return None
        is_past = value > limit
        if value >= values.get(group.model):
            values[group.model] = value
            if is_past:
                call = StalledCall(group.operation, age, silence)
                self._worst[name, group.model] = call
        return limit if is_past else None

    def _quiet(self, group: _Group) -> float | None:
        """For how long a model with a call that waits has given no sign of life."""
        if group.waiting is None or group.heard is None:
            quiet = group.waiting
        else:
            quiet = min(group.waiting, group.heard)
        limit = self._limits[NO_ANSWER]
        if quiet is None or limit is None or quiet <= limit:
            return quiet
        metrics = self._metrics(group.model)
        if metrics is not None and metrics.last_updated is not None:
            quiet = min(quiet, self._clock.time() - metrics.last_updated.timestamp())
        return quiet

    def _usual(self, group: _Group, now: float) -> float | None:
        """The 99th percentile of calls like these; `None` if they are no long ones."""
        if (
            group.oldest_age <= float(self._stalls.least)
            or self._limits[TOO_LONG] is None
        ):
            return None
        read_at, usual = self._history.get(group.key, (float("-inf"), None))
        if now - read_at < _HISTORY_LASTS:
            return usual
        metrics = self._metrics(group.model)
        name = group.operation
        if group.provider != OLLAMA:
            name = f"{name}@{group.provider}"
        call = None if metrics is None else metrics.calls.get(name)
        usual = None
        if call is not None and call.latency.count >= _ENOUGH:
            usual = call.latency.quantile(0.99) or None
        self._history[group.key] = now, usual
        return usual

    def _look_at_queues(self, groups: Sequence[_Group], now: float) -> None:
        calls: dict[str, int] = {}
        for group in groups:
            calls[group.model] = calls.get(group.model, 0) + group.calls
        flat = float(self._stalls.queue or 0.0) / 2
        queues = {}
        for model, n in calls.items():
            queue = self._queues.get(model)
            if queue is None or n < queue.calls or now - queue.rose > flat:
                queue = _Queue(began=now, rose=now, first=n, calls=n)
            elif n > queue.calls:
                queue = queue._replace(rose=now, calls=n)
            queues[model] = queue
            if n >= max(2 * queue.first, queue.first + _GROWN):
                self._values[QUEUE][model] = now - queue.began
        self._queues = queues


class _Queue(NamedTuple):
    """A model's calls in flight since they last became fewer, or stayed as many."""

    began: float
    rose: float
    first: int
    calls: int
