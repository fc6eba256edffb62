# SPDX-License-Identifier: MIT
"""What a rule can watch: every number of a snapshot, by name, with its unit.

The names are those of the declared fields and properties of the read types (see
`ometrics.fields`), found there rather than listed here; a histogram's name is followed
by a statistic:

    error_rate  total_requests  in_flight  oldest_in_flight_seconds  throughput
    latency.p95  time_to_first_chunk.mean  prefill.max  decode.count
    errors.TIMEOUT  done_reasons.length  task_statistics.success_rate

A reader gives `None` where nothing is known, as a ratio of no requests, so that a rule
never takes missing data for a good value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias, get_type_hints

from ometrics.fields import (
    Counter,
    Counts,
    Distribution,
    Extreme,
    Field,
    Gauge,
    fields_of,
    seconds_of_ns,
    since_1970,
)
from ometrics.histogram import LatencyHistogram, TokenHistogram
from ometrics.models import CallMetrics, PerformanceMetrics
from ometrics.snapshot import ResourceMetrics, Snapshot, TaskStatistics

Scope: TypeAlias = Literal["model", "call", "snapshot"]
Unit: TypeAlias = Literal["s", "ms", "%", "MB", "1/s", "tokens/s", ""]

# Short names for what people ask for most.
ALIASES: Final = {"errors": "failed_reqs", "requests": "total_requests"}
# A ratio is unknown while what it divides by is zero.
_DENOMINATORS: Final = {
    "error_rate": "total_requests",
    "overall_error_rate": "total_requests",
    "avg_tokens_per_req": "successful_reqs",
    "success_rate": "total_tasks",
}
# Dates; and times that only make sense divided by something.
_NO_NUMBERS: Final = (since_1970, seconds_of_ns)
_PERCENTILE: Final = re.compile(r"p(\d{1,2}|\d{3,5}|\d{1,2}\.\d{1,3})")
_STATISTICS: Final = ("p50", "p90", "p95", "p99", "p999", "mean", "min", "max", "count")
_NUMBERS: Final = (int, float, int | None, float | None)


@dataclass(frozen=True)
class Quantity:
    """
    One number that a rule can watch.

    Attributes:
        name: As rules write it.
        unit: `s`, `ms`, `%`, `MB`, `1/s`, `tokens/s`, or empty for a count.
        scope: Whose number it is: each model's, that of a model's calls (all operations
            together unless the rule names one), or of the whole snapshot.
        field: Field or property of the read type that it comes from.
        statistic: Of a histogram, what of it; else empty.
        key: Of counts by code or reason, which; else empty.
        read: Its value in a `PerformanceMetrics`, `CallMetrics` or `Snapshot`.
        declared: Where it is declared; `None` for a property made of other fields.
    """

    name: str
    unit: Unit
    scope: Scope
    field: str
    read: Callable[[Any], float | None]
    statistic: str = ""
    key: str = ""
    declared: Field | None = None

    @property
    def highest(self) -> float | None:
        """The largest value there can be; `None` for no limit."""
        return 100.0 if self.unit == "%" and self.field != "cpu_usage_percent" else None


class UnknownQuantityError(ValueError):
    """No number of a snapshot has this name; the message has the nearest that do."""

    def __init__(self, name: str, candidates: Iterable[str]) -> None:
        near = nearest(name, candidates)
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else "'ometrics rules metrics' lists all"
        )
        super().__init__(f"there is no metric {name!r}; {hint}")


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """Up to three of `candidates` that look most like `name`."""
    return difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.6)


@lru_cache(maxsize=1024)
def resolve(name: str) -> Quantity:
    """
    The number that a rule names.

    Raises:
        UnknownQuantityError: There is none; the message suggests the nearest names.
    """
    wanted = ALIASES.get(name, name)
    known = quantities()
    if wanted in known:
        return known[wanted]
    field, _, rest = wanted.partition(".")
    if rest and field in histograms():
        quantile = quantile_of(rest)
        if quantile is not None:
            return _of_histogram(field, rest)
    if rest and field in _counters():
        return _of_counts(field, rest)
    if not rest and field in histograms():
        raise UnknownQuantityError(name, [f"{field}.p95", f"{field}.mean"]) from None
    raise UnknownQuantityError(name, [*known, *ALIASES])


@lru_cache(maxsize=1)
def quantities() -> Mapping[str, Quantity]:
    """Every number by name, in the order of the read types."""
    found: dict[str, Quantity] = {}
    for scope, part, owner in _OWNERS:
        for field, declared in _numbers(owner):
            number = _plain(scope, part, field, declared)
            found.setdefault(number.name, number)
    for name in histograms():
        for statistic in _STATISTICS:
            number = _of_histogram(name, statistic)
            found[number.name] = number
    return found


# Whose numbers there are, and the part of a snapshot that they are in.
_OWNERS: Final[tuple[tuple[Scope, str, type], ...]] = (
    ("model", "", PerformanceMetrics),
    ("call", "", CallMetrics),
    ("snapshot", "", Snapshot),
    ("snapshot", "task_statistics", TaskStatistics),
    ("snapshot", "resource_metrics", ResourceMetrics),
)


def _numbers(owner: type) -> Iterator[tuple[str, Field | None]]:
    """Fields and properties that are numbers, declared or made of others."""
    declared = {field.name: field for field in fields_of(owner)}
    for name, field in declared.items():
        is_number = isinstance(field, Counter | Gauge | Extreme)
        if is_number and field.convert not in _NO_NUMBERS and not _is_shown_as(name):
            yield name, field
    for name, member in vars(owner).items():
        if isinstance(member, property) and name not in declared:
            kind = get_type_hints(member.fget).get("return")
            if kind in _NUMBERS and not _is_shown_as(name):
                yield name, None


def _is_shown_as(name: str) -> bool:
    """Whether a property is a statistic of `latency`, which has its own notation."""
    return name.startswith("latency_p") or name.endswith("_latency")


@lru_cache(maxsize=1)
def histograms() -> Mapping[str, tuple[Scope, Field]]:
    """Name -> whose histogram it is, and its declaration."""
    return {
        field.name.removesuffix("_hist"): (scope, field)
        # Reversed: of two with one name, that of all requests stands for both.
        for scope, _, owner in reversed(_OWNERS)
        for field in fields_of(owner)
        if isinstance(field, Distribution)
    }


@lru_cache(maxsize=1)
def _counters() -> Mapping[str, tuple[Scope, Field]]:
    """Fields that count by code or reason -> whose, and their declaration."""
    return {
        field.name: (scope, field)
        for scope, _, owner in reversed(_OWNERS)
        for field in fields_of(owner)
        if isinstance(field, Counts)
    }


def _unit(field: str) -> Unit:
    for ending, unit in _UNITS:
        if field.endswith(ending):
            return unit
    return ""


_UNITS: Final[tuple[tuple[str, Unit], ...]] = (
    ("tokens_per_second", "tokens/s"),
    ("_seconds", "s"),
    ("_ms", "ms"),
    ("_mb", "MB"),
    ("_rate", "%"),
    ("_percent", "%"),
    ("throughput", "1/s"),
)


def _plain(scope: Scope, part: str, field: str, declared: Field | None) -> Quantity:
    read = _known(field, attrgetter(field))
    if part:
        read = _of_part(attrgetter(part), read)
    name = f"{part}.{field}" if part else field
    return Quantity(name, _unit(field), scope, field, read, declared=declared)


def _of_part(
    part: Callable[[Any], Any], read: Callable[[Any], float | None]
) -> Callable[[Any], float | None]:
    return lambda owner: None if (inner := part(owner)) is None else read(inner)


def _known(field: str, get: Callable[[Any], Any]) -> Callable[[Any], float | None]:
    """A reader that gives `None` for a ratio of nothing."""
    if field not in _DENOMINATORS:
        return get
    whole = attrgetter(_DENOMINATORS[field])
    return lambda owner: get(owner) if whole(owner) else None


def quantile_of(statistic: str) -> float | None:
    """
    The quantile that `p95`, `p99.9` or `p999` names; `None` if it names none.

    Without a point, digits after the second are decimals: `p999` is 0.999.
    """
    if not _PERCENTILE.fullmatch(statistic):
        return None
    digits = statistic[1:]
    if "." not in digits and len(digits) > 2:  # noqa: PLR2004 - p99 is 0.99
        digits = f"{digits[:2]}.{digits[2:]}"
    return float(digits) / 100


def _of_histogram(name: str, statistic: str) -> Quantity:
    scope, declared = histograms()[name]
    get = attrgetter(declared.name)
    # A window often knows no extreme; the outermost cell is within 1.1 % of it.
    quantile = {"min": 0.0, "max": 1.0}.get(statistic, quantile_of(statistic))
    read: Callable[[Any], float | None]
    if quantile is None:
        part = attrgetter(statistic)

        def read(owner: Any) -> float | None:
            value: float | None = part(get(owner))
            return value

    else:

        def read(owner: Any) -> float | None:
            histogram: LatencyHistogram | TokenHistogram = get(owner)
            # Most histograms are empty, and this is asked of every model.
            return histogram.quantile(quantile) if histogram.cells else None

    metric = declared.metric
    is_time = statistic != "count" and metric is not None and metric.unit == "s"
    unit: Unit = "s" if is_time else ""
    return Quantity(
        *(f"{name}.{statistic}", unit, scope, declared.name, read),
        statistic=statistic,
        declared=declared,
    )


def _of_counts(field: str, key: str) -> Quantity:
    get = attrgetter(field)

    def read(owner: Any) -> float | None:
        count: int = get(owner).get(key, 0)
        return count

    scope, declared = _counters()[field]
    name = f"{field}.{key}"
    return Quantity(name, "", scope, field, read, key=key, declared=declared)
