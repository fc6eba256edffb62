# SPDX-License-Identifier: MIT
"""
What a collector must say, worked out the slow way: lists, dictionaries and Python ints.

`Oracle` takes the same calls as `MetricsCollector` and keeps every value. Its snapshots
and the collector's are compared as plain facts:

    assert oracle.snapshot().facts() == facts(collector.snapshot())

Written from the description of the interface, not from the core.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from typing import Any

from ometrics import DEFAULT_BUCKETS, OllamaError
from ometrics.snapshot import PerformanceMetrics, Snapshot

OVERFLOW = "__overflow__"
OTHER = "_OTHER"
MAX_NAME = 256
MAX_CODES = 32
LIMIT = 2**64 - 1
LABELS = ("1ms", "5ms", "10ms", "25ms", "50ms", "100ms", "250ms", "500ms", "1s", "5s")
LAST_LABEL = "10s+"
LOWEST, HIGHEST = 2.0**-20, 2.0**12  # seconds: the range of the exponential view
CODES = {
    "ErrorTimeout": "TIMEOUT",
    "ErrorConnectionFailed": "CONNECTION_FAILED",
    "ErrorInvalidModel": "INVALID_MODEL",
    "ErrorResourceExhausted": "RESOURCE_EXHAUSTED",
    "ErrorModelNotLoaded": "MODEL_NOT_LOADED",
    "ErrorInvalidRequest": "INVALID_REQUEST",
}


def number(value: object) -> float:
    """A value as a float; what is too large is infinite."""
    if value is None or isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"not a number: {value!r}")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def seconds(latency: object) -> float:
    """A latency in seconds."""
    if isinstance(latency, timedelta):
        return latency.total_seconds()
    return number(latency)


def fault(value: float) -> str | None:
    """Why a value is not counted as a number."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value) and value > 0:
        return "infinite"
    return "negative" if value < 0 else None


def name_of(model: object) -> str:
    """The name under which a model is kept."""
    if not isinstance(model, str):
        raise TypeError(f"not a name: {model!r}")
    return re.sub("[\ud800-\udfff]", "\ufffd", model[:MAX_NAME])


def code_of(error: object) -> str:
    """The code under which a failure is counted."""
    if isinstance(error, str):
        return name_of(error)
    if isinstance(error, OllamaError):
        return name_of(error.code)
    kind = error if isinstance(error, type) else type(error)
    if not issubclass(kind, BaseException):
        raise TypeError(f"not an error: {error!r}")
    for base in kind.__mro__:
        if base.__name__ in CODES:
            return CODES[base.__name__]
    return kind.__name__


def nanoseconds(value: float) -> int:
    """A duration as it is added up."""
    return min(int(value * 1e9 + 0.5), LIMIT)


def label(value: float) -> str:
    """The original's bucket of a latency."""
    for name, bound in zip(LABELS, DEFAULT_BUCKETS, strict=False):
        if value <= bound:
            return name
    return LAST_LABEL


def exponential_index(value: float) -> int:
    """
    OpenTelemetry's bucket at scale 5: `i` with 2^(i/32) < value <= 2^((i+1)/32).

    Exact: compares value^32 with powers of two as integers.
    """
    power = Fraction(value) ** 32
    guess = power.numerator.bit_length() - power.denominator.bit_length() - 1
    while power > Fraction(2) ** guess:
        guess += 1
    return guess - 1


def quantile(values: list[float], q: float) -> float:
    """The exact sample quantile by nearest rank."""
    ordered = sorted(values)
    rank = max(math.ceil(q * len(ordered)), 1)
    return ordered[rank - 1]


@dataclass
class Model:
    """All that was recorded for one model."""

    latencies: list[float] = field(default_factory=list)
    unknown: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    tokens: int = 0

    def fail(self, code: str) -> None:
        """Count one failure; only so many codes are told apart."""
        known = self.errors.keys() - {OTHER}
        full = code not in known and len(known) >= MAX_CODES
        self.errors[OTHER if full else code] += 1

    def merged(self, other: Model) -> Model:
        """Both together."""
        return Model(
            latencies=self.latencies + other.latencies,
            unknown=self.unknown + other.unknown,
            errors=self.errors + other.errors,
            tokens=self.tokens + other.tokens,
        )

    def minus(self, earlier: Model) -> Model:
        """What came after `earlier`."""
        left = Counter(self.latencies)
        left.subtract(earlier.latencies)
        return Model(
            latencies=list(left.elements()),
            unknown=self.unknown - earlier.unknown,
            errors=self.errors - earlier.errors,
            tokens=self.tokens - earlier.tokens,
        )

    @property
    def empty(self) -> bool:
        """Whether nothing is counted."""
        return not (self.latencies or self.unknown or self.errors or self.tokens)

    def facts(self) -> dict[str, Any]:
        """As `model_facts` of what a collector says."""
        successes = len(self.latencies) + self.unknown
        failures = sum(self.errors.values())
        total = successes + failures
        sum_ns = min(sum(map(nanoseconds, self.latencies)), LIMIT)
        inner = [v for v in self.latencies if LOWEST < v <= HIGHEST]
        labels = Counter(map(label, self.latencies))
        return {
            "total": total,
            "successful": successes,
            "failed": failures,
            "unknown": self.unknown,
            "errors": dict(self.errors),
            "tokens": min(self.tokens, LIMIT),
            "count": len(self.latencies),
            "sum_ns": sum_ns,
            "min": min(self.latencies, default=None),
            "max": max(self.latencies, default=None),
            "avg": sum_ns / len(self.latencies) / 1e9 if self.latencies else None,
            "error_rate": 100.0 * failures / total if total else 0.0,
            "tokens_per_request": (
                min(self.tokens, LIMIT) / successes if successes else None
            ),
            "buckets": {name: labels[name] for name in (*LABELS, LAST_LABEL)},
            "exponential": dict(Counter(map(exponential_index, inner))),
            "underflow": sum(v <= LOWEST for v in self.latencies),
            "overflow": sum(v > HIGHEST for v in self.latencies),
        }


def model_facts(model: PerformanceMetrics) -> dict[str, Any]:
    """What a collector says of a model."""
    hist = model.latency_hist
    return {
        "total": model.total_requests,
        "successful": model.successful_reqs,
        "failed": model.failed_reqs,
        "unknown": model.latency_unknown,
        "errors": dict(model.errors),
        "tokens": model.tokens_processed,
        "count": hist.count,
        "sum_ns": hist.sum_ns,
        "min": model.min_latency,
        "max": model.max_latency,
        "avg": model.avg_latency,
        "error_rate": model.error_rate,
        "tokens_per_request": model.avg_tokens_per_req,
        "buckets": hist.buckets,
        "exponential": {
            hist.offset + i: count for i, count in enumerate(hist.counts) if count
        },
        "underflow": hist.underflow,
        "overflow": hist.overflow,
    }


@dataclass
class OracleSnapshot:
    """Everything at one instant."""

    models: dict[str, Model] = field(default_factory=dict)
    tasks: list[tuple[bool, float | None]] = field(default_factory=list)  # ms
    invalid: Counter[str] = field(default_factory=Counter)
    resources: tuple[float, float, int] | None = None
    events: int = 0

    def merge(self, other: OracleSnapshot) -> OracleSnapshot:
        """Both together; the resources of a merge are not this class's business."""
        names = [*self.models, *(other.models.keys() - self.models.keys())]
        none = Model()
        return OracleSnapshot(
            models={
                name: self.models.get(name, none).merged(other.models.get(name, none))
                for name in names
            },
            tasks=self.tasks + other.tasks,
            invalid=self.invalid + other.invalid,
            resources=self.resources,
            events=self.events + other.events,
        )

    def delta(self, earlier: OracleSnapshot) -> OracleSnapshot:
        """What came after `earlier`."""
        tasks = Counter(self.tasks)
        tasks.subtract(earlier.tasks)
        return OracleSnapshot(
            models={
                name: model.minus(earlier.models.get(name, Model()))
                for name, model in self.models.items()
            },
            tasks=list(tasks.elements()),
            invalid=self.invalid - earlier.invalid,
            resources=self.resources,
            events=self.events - earlier.events,
        )

    def facts(self, *, window: bool = False) -> dict[str, Any]:
        """As the function `facts`."""
        known = [ms for _, ms in self.tasks if ms is not None]
        sum_ns = min(sum(nanoseconds(ms / 1e3) for ms in known), LIMIT)
        failures = sum(sum(m.errors.values()) for m in self.models.values())
        total = sum(m.facts()["total"] for m in self.models.values())
        completed = sum(success for success, _ in self.tasks)
        told = {
            "models": {
                name: model.facts()
                for name, model in self.models.items()
                if not (window and model.empty)
            },
            "total": total,
            "total_errors": failures,
            "overall_error_rate": 100.0 * failures / total if total else 0.0,
            "tasks": len(self.tasks),
            "tasks_completed": completed,
            "tasks_failed": len(self.tasks) - completed,
            "tasks_unknown": len(self.tasks) - len(known),
            "task_sum_ns": sum_ns,
            "task_avg_ms": sum_ns / len(known) / 1e6 if known else None,
            "task_min_ms": min(known, default=None),
            "task_max_ms": max(known, default=None),
            "success_rate": 100.0 * completed / len(self.tasks) if self.tasks else 0.0,
            "invalid": dict(self.invalid),
            "resources": self.resources,
            "events": self.events,
        }
        return without_extremes(told) if window else told


def facts(snapshot: Snapshot, *, window: bool = False) -> dict[str, Any]:
    """
    What a snapshot says, as plain Python.

    Args:
        snapshot: Of a collector.
        window: Without what a difference of two snapshots cannot know: extremes, the
            resources, and models of which nothing is left.
    """
    tasks = snapshot.task_statistics
    resources = snapshot.resource_metrics
    told = {
        "models": {
            name: model_facts(model)
            for name, model in snapshot.models.items()
            if not window or model.total_requests or model.tokens_processed
        },
        "total": snapshot.total_requests,
        "total_errors": snapshot.total_errors,
        "overall_error_rate": snapshot.overall_error_rate,
        "tasks": tasks.total_tasks,
        "tasks_completed": tasks.completed_tasks,
        "tasks_failed": tasks.failed_tasks,
        "tasks_unknown": tasks.duration_unknown,
        "task_sum_ns": tasks.sum_ns,
        "task_avg_ms": tasks.avg_completion_ms,
        "task_min_ms": tasks.min_completion_ms,
        "task_max_ms": tasks.max_completion_ms,
        "success_rate": tasks.success_rate,
        "invalid": dict(snapshot.invalid_values),
        "resources": (
            None
            if resources is None
            else (
                resources.memory_usage_mb,
                resources.cpu_usage_percent,
                resources.goroutine_count,
            )
        ),
        "events": snapshot.events_emitted,
    }
    return without_extremes(told) if window else told


def without_extremes(told: dict[str, Any]) -> dict[str, Any]:
    """Facts that also a window knows."""
    kept = {k: v for k, v in told.items() if k not in _EXTREMES}
    kept["models"] = {
        name: {k: v for k, v in model.items() if k not in _EXTREMES}
        for name, model in told["models"].items()
    }
    return kept


_EXTREMES = frozenset({"min", "max", "task_min_ms", "task_max_ms", "resources"})


class Oracle:
    """
    The calls of `MetricsCollector`, recorded in lists.

    Args:
        max_models: Names kept apart; later ones count under `__overflow__`.
    """

    def __init__(self, *, max_models: int = 1000) -> None:
        self.max_models = max_models
        self.now = OracleSnapshot()

    def _model(self, model: object, *, records: int = 1) -> Model:
        name = name_of(model)
        models = self.now.models
        if name not in models and len(models.keys() - {OVERFLOW}) >= self.max_models:
            name = OVERFLOW
        self.now.events += records
        return models.setdefault(name, Model())

    def _add(self, model: Model, value: float) -> None:
        reason = fault(value)
        if reason is None:
            model.latencies.append(value)
        else:
            model.unknown += 1
            self.now.invalid[reason] += 1

    def record_latency(self, model: object, latency: object) -> None:
        """One success."""
        value = seconds(latency)
        self._add(self._model(model), value)

    def record_latencies(self, model: object, values: Iterable[object]) -> None:
        """Many successes."""
        batch = [seconds(value) for value in values]
        name_of(model)
        if batch:
            kept = self._model(model, records=len(batch))
            for value in batch:
                self._add(kept, value)

    def record_error(self, model: object, error: object) -> None:
        """One failure."""
        code = code_of(error)
        self._model(model).fail(code)

    def record_tokens(self, model: object, token_count: int) -> None:
        """Tokens; a negative count is only counted as such."""
        kept = self._model(model, records=0)
        if token_count < 0:
            self.now.invalid["negative"] += 1
        else:
            kept.tokens += int(token_count)

    def record_task_completion(self, success: object, duration_ms: object) -> None:
        """One task."""
        value = number(duration_ms)
        reason = fault(value)
        if reason is not None:
            self.now.invalid[reason] += 1
        self.now.tasks.append((bool(success), None if reason else value))
        self.now.events += 1

    def update_resource_metrics(
        self, memory_mb: object, cpu_percent: object, goroutine_count: object
    ) -> None:
        """What the process uses; one bad value refuses all three."""
        values = [number(v) for v in (memory_mb, cpu_percent, goroutine_count)]
        reason = next(filter(None, map(fault, values)), None)
        if reason is not None:
            self.now.invalid[reason] += 1
            return
        self.now.resources = (values[0], values[1], int(values[2]))
        self.now.events += 1

    def remove_model(self, name: str) -> bool:
        """Forget a model."""
        return self.now.models.pop(name_of(name), None) is not None

    def snapshot(self) -> OracleSnapshot:
        """Everything now."""
        return deepcopy(self.now)

    def reset_metrics(self) -> OracleSnapshot:
        """Everything up to now; then nothing."""
        told, self.now = self.now, OracleSnapshot()
        return told
