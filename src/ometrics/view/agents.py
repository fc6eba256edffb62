# SPDX-License-Identifier: MIT
"""Processes and models that are at work now, as rows of a table to sort and filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from operator import attrgetter
from typing import Any, Final

from rich.text import Text

from ometrics.histogram import LatencyHistogram
from ometrics.models import PerformanceMetrics
from ometrics.snapshot import Snapshot
from ometrics.view import tables
from ometrics.view.escape import harmless
from ometrics.view.fitted import FittedTable, TableColumn
from ometrics.view.units import compact, count, duration, number

Model = tuple[PerformanceMetrics, PerformanceMetrics | None]


@dataclass(frozen=True)
class Agent:
    """
    A process at work.

    Attributes:
        pid: Its number.
        program: The program's name.
        now: What it counted since its start.
        recent: What it counted lately.
        seconds: How long lately is.
    """

    pid: int
    program: str
    now: Snapshot
    recent: Snapshot
    seconds: float

    def models(self) -> Iterator[tuple[str, Model]]:
        """Each model's name, and its numbers of both."""
        for name, metrics in self.now.models.items():
            yield name, (metrics, self.recent.models.get(name))


@dataclass(frozen=True)
class Row:
    """
    One row: a process, a model, or a model in a process.

    Attributes:
        process: Number and name; of a model, how many processes use it.
        model: Its name; of a process with several, how many.
        requests: Since the start.
        errors: Failed ones of these.
        in_flight: Requests that run now.
        oldest: Age of the oldest of them, in seconds.
        rate: Requests a minute, lately.
        p50: Median latency lately, in seconds.
        p95: 95th percentile, likewise.
        speed: Tokens a second that servers decode, lately.
    """

    process: str
    model: str
    requests: int
    errors: int
    in_flight: int
    oldest: float | None
    rate: float
    p50: float | None
    p95: float | None
    speed: float | None


#: What rows are made of, by name: the attributes that can be sorted by, and the column.
COLUMNS: Final[Mapping[str, TableColumn]] = {
    "process": TableColumn("process", left=True),
    "model": TableColumn("model", left=True),
    "requests": TableColumn("reqs"),
    "errors": TableColumn("errs"),
    "in_flight": TableColumn("run"),
    "oldest": TableColumn("age", 2),
    "rate": TableColumn("/min", 5),
    "p50": TableColumn("p50", 3),
    "p95": TableColumn("p95", 1),
    "speed": TableColumn("tok/s", 4),
}
_TEXTS: Final = ("process", "model")


def by_process(processes: Iterable[Agent]) -> list[Row]:
    """One row a process."""
    return [
        _row(
            _label(process),
            _one_or_many(list(process.now.models), "model"),
            [model for _, model in process.models()],
            process.seconds,
        )
        for process in processes
    ]


def by_model(processes: Iterable[Agent]) -> list[Row]:
    """One row a model, of whatever processes use it."""
    found: dict[str, list[tuple[Agent, Model]]] = {}
    for process in processes:
        for name, model in process.models():
            found.setdefault(name, []).append((process, model))
    return [
        _row(
            _one_or_many([_label(process) for process, _ in users], "process"),
            name,
            [model for _, model in users],
            max(process.seconds for process, _ in users),
        )
        for name, users in found.items()
    ]


def by_both(processes: Iterable[Agent]) -> list[Row]:
    """One row for each model in each process."""
    rows = []
    for process in processes:
        models = list(process.models())
        rows += [
            _row(_label(process), name, [model], process.seconds)
            for name, model in models
        ] or by_process([process])
    return rows


#: The ways to make rows, by name.
GROUPINGS: Final[Mapping[str, Callable[[Iterable[Agent]], list[Row]]]] = {
    "process and model": by_both,
    "process": by_process,
    "model": by_model,
}


def _label(process: Agent) -> str:
    return f"{process.pid} {process.program}"


def _one_or_many(names: Sequence[str], noun: str) -> str:
    if len(names) == 1:
        return names[0]
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count(len(names))} {plural}" if names else ""


def _row(process: str, model: str, models: Sequence[Model], seconds: float) -> Row:
    now = [metrics for metrics, _ in models]
    recent = [metrics for _, metrics in models if metrics is not None]
    running = [call for metrics in now for call in metrics.calls.values()]
    calls = [call for metrics in recent for call in metrics.calls.values()]
    latency = _together([metrics.latency_hist for metrics in recent])
    requests = sum(metrics.total_requests for metrics in recent)
    decode_ns = sum(call.decode_ns for call in calls)
    tokens = sum(call.decode_tokens for call in calls)
    return Row(
        process=process,
        model=model,
        requests=sum(metrics.total_requests for metrics in now),
        errors=sum(metrics.failed_reqs for metrics in now),
        in_flight=sum(call.in_flight for call in running),
        oldest=max((c.oldest_in_flight_seconds or 0.0 for c in running), default=0.0)
        or None,
        rate=requests / seconds * 60 if seconds else 0.0,
        p50=None if latency is None else latency.quantile(0.5),
        p95=None if latency is None else latency.quantile(0.95),
        speed=tokens / decode_ns * 1e9 if decode_ns else None,
    )


def _together(histograms: Sequence[LatencyHistogram]) -> LatencyHistogram | None:
    """Their sum; `None` of nothing, and of different buckets, which have none."""
    try:
        return histograms[0].merge(*histograms[1:]) if histograms else None
    except ValueError:
        return None


def ordered(rows: Iterable[Row], column: str, *, largest_first: bool) -> list[Row]:
    """
    Rows by a column; what is unknown comes last, equals have the busier first.

    Args:
        rows: What to sort.
        column: One of `COLUMNS`.
        largest_first: Whether from large to small, or from Z to A.
    """
    busier = sorted(rows, key=attrgetter("process", "model"))
    busier.sort(key=attrgetter("rate", "requests"), reverse=True)
    if column in _TEXTS:
        return sorted(busier, key=attrgetter(column), reverse=largest_first)
    get: Callable[[Row], Any] = attrgetter(column)
    sign = -1 if largest_first else 1

    def place(row: Row) -> float:
        value = get(row)
        return inf if value is None else sign * value

    return sorted(busier, key=place)


def matching(rows: Iterable[Row], text: str) -> list[Row]:
    """Rows with a text in their process or model, whatever the case."""
    wanted = text.casefold()
    return [row for row in rows if wanted in f"{row.process} {row.model}".casefold()]


def table(rows: Iterable[Row], column: str, width: int) -> FittedTable:
    """
    Rows as a table.

    Args:
        rows: In their order.
        column: By which they are ordered.
        width: Characters of the terminal, of which long names have a part.
    """
    columns = [
        replace(c, title=f"{c.title}*") if name == column else c
        for name, c in COLUMNS.items()
    ]
    return FittedTable(
        columns,
        (_cells(row, min(max(width // 5, 12), tables.NAME_WIDTH)) for row in rows),
    )


def _cells(row: Row, width: int) -> list[Text | str]:
    return [
        Text(harmless(row.process, width)),
        tables.name(row.model, width) if row.model else "",
        _narrow(row.requests),
        Text(_narrow(row.errors), style="red" if row.errors else "dim"),
        Text(count(row.in_flight), "cyan" if row.in_flight else "dim"),
        duration(row.oldest, 2),
        number(row.rate, 2),
        duration(row.p50),
        duration(row.p95),
        number(row.speed),
    ]


def _narrow(value: int) -> str:
    """Exact as long as it is short."""
    return count(value) if value < 100_000 else compact(value)  # noqa: PLR2004
