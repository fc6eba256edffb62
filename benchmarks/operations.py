# SPDX-License-Identifier: MIT
"""The one registry of what is timed, against what, and how fast it has to be.

The report, the pytest-benchmark suite and the callgrind driver all read `OPERATIONS`.
What cannot be said as one statement (threads, memory, imports) is in `measures.py`.
"""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Literal

import empty
from rounds import Statement

from ometrics import MetricsCollector, Snapshot, attach
from ometrics._calls import Call, record_call
from ometrics.export import prometheus
from ometrics.rules import Engine, Rule, Stalls, quantities
from ometrics.rules.watch import Watch

# Nanoseconds of the original Go package. No Go toolchain runs beside ours, so these are
# constants from another day; every ratio against one of them is marked as such.
ORIGINAL = {
    "RecordLatency": 452.0,
    "RecordTokens": 35.0,
    "RecordError": 537.0,
    "GetModelMetrics": 1_350.0,
    "ExportJSON of 100 models": 1_360_000.0,
}
ORIGINAL_SOURCE = "a constant: the original Go package, measured on another day"

PROCESSES = 8  # that share a directory
MANY, SOME = 1000, 100  # models of the large worlds
IN_FLIGHT = 10_000
LATENCIES = 200  # a model of the large worlds, lognormal
BATCH = 1000

Kind = Literal["ratio", "faster", "at most", "beyond", "none"]


@dataclass(frozen=True)
class Bar:
    """
    What one operation has to reach.

    Args:
        kind: `ratio`: cost over the cost of `against`, at most `limit`. `faster`: cost
            of `against` over its own, at least `limit`. `at most`: nanoseconds.
            `beyond`: nanoseconds above `against`. `none`: a ratio, only reported.
        limit: The bar.
        against: An operation, `peer:operation` or `original:operation`.
        aim: The number to be proud of.
    """

    kind: Kind
    limit: float = 0.0
    against: str = ""
    aim: float | None = None


@dataclass(frozen=True)
class Operation:
    """
    One statement to time.

    Args:
        name: Unique; names the benchmark everywhere.
        title: As the table says it.
        code: The statement.
        world: Makes the names that it uses.
        bars: What it has to reach; none for what others are compared with.
        values: How many values one execution stands for.
        instructions: Executions to count instructions over; 0 to leave it out.
    """

    name: str
    title: str
    code: str
    world: Callable[[], dict[str, object]]
    bars: tuple[Bar, ...] = ()
    values: int = 1
    instructions: int = 0

    @property
    def slow(self) -> bool:
        """Whether one execution takes a good part of a millisecond or more."""
        return self.world in (many_models, some_models, rules, several, in_flight)

    def statement(self) -> Statement:
        """What `rounds.measure` takes."""
        return Statement(self.code, self.world(), self.values)


def latencies(n: int, seed: int = 1) -> array[float]:
    """Latencies as models have them: lognormal around 0.3 s, in seconds."""
    pick = random.Random(seed)
    return array("d", [pick.lognormvariate(-1.2, 0.8) for _ in range(n)])


def filled_model(
    name: str, collector: MetricsCollector, seed: int = 1
) -> MetricsCollector:
    """The collector, which has seen requests of a model, tokens and an error."""
    collector.record_latencies(name, latencies(LATENCIES, seed))
    collector.record_tokens(name, 100 * LATENCIES)
    collector.record_error(name, "TIMEOUT")
    return collector


def filled(models: int, collector: MetricsCollector | None = None) -> MetricsCollector:
    """A collector that has seen requests, tokens and errors of `models` models."""
    collector = collector or MetricsCollector(max_models=models)
    for i in range(models):
        filled_model(f"model-{i:04d}", collector, seed=i)
    collector.record_task_completion(True, 150.0)
    collector.update_resource_metrics(512, 45.5, 10)
    return collector


@cache
def one_model() -> dict[str, object]:
    """Everything that records, real and empty, on warmed-up models `m` and `n`."""
    module = empty.load()

    class Empty(module.EmptyCore):  # as MetricsCollector derives from Core
        __slots__ = ()

    class Failure(Exception):  # noqa: N818 - an application's own
        pass

    collector = MetricsCollector()
    for model in "nm":
        collector.record_latency(model, 0.15)
        collector.record_error(model, Failure)
        Call(collector, model, "chat").end("success")
    return {
        "mc": collector,
        "bound": collector.model("m"),
        "call": Call(collector, "m", "chat"),
        "Call": Call,
        "record_call": record_call,
        "empty": Empty(),
        "empty_bound": module.EmptyRecorder(),
        "empty_call": module.EmptyCall(),
        "Failure": Failure,
        "batch": latencies(BATCH),
        "perf_counter": perf_counter,
    }


@cache
def plain_model() -> dict[str, object]:
    """A model of which everything is known that the original package records."""
    return {"mc": filled_model("m", MetricsCollector())}


@cache
def called_model() -> dict[str, object]:
    """The same with calls of one operation."""
    collector = filled_model("m", MetricsCollector())
    for _ in range(LATENCIES):
        call = Call(collector, "m", "chat")
        call.chunk(True)
        call.end("success", None, 9, 1, 2, 5, 100, 50, 20, "stop")
    return {"mc": collector}


@cache
def in_segment() -> dict[str, object]:
    """The same with records in a file that other processes read."""
    collector = MetricsCollector(directory=temporary_directory())
    collector.record_latency("m", 0.15)
    collector.record_error("m", ValueError)
    Call(collector, "m", "chat").end("success")
    return {
        **one_model(),
        "mc": collector,
        "bound": collector.model("m"),
        "call": Call(collector, "m", "chat"),
    }


@cache
def several() -> dict[str, object]:
    """As many segments of 100 models as eight processes have."""
    directory = temporary_directory()
    processes = [
        filled(SOME, MetricsCollector(directory=directory)) for _ in range(PROCESSES)
    ]
    return {"processes": processes, "pool": attach(directory)}


def temporary_directory() -> Path:
    """One that goes with this process."""
    directory = tempfile.mkdtemp(prefix="ometrics-bench-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


@cache
def many_models() -> dict[str, object]:
    """A collector of 1,000 models."""
    return {
        "mc": filled(MANY),
        "render": prometheus.render,
        "TEXT": prometheus.TEXT,
        "PROTOBUF": prometheus.PROTOBUF,
    }


@cache
def some_models() -> dict[str, object]:
    """A collector of 100 models, and its document."""
    collector = filled(SOME)
    document = collector.export_json()
    return {"mc": collector, "Snapshot": Snapshot, "document": document}


# Ten numbers, each watched by ten rules.
WATCHED = (
    *("latency.p50", "latency.p95", "latency.p99", "latency.mean", "error_rate"),
    *("throughput", "total_requests", "tokens_processed", "errors.TIMEOUT"),
    "latency_unknown",
)


@cache
def rules() -> dict[str, object]:
    """A window of 100 models; 100 rules of ten numbers, and as many of one each."""
    window = filled(SOME).snapshot()
    numbers = [n for n, q in quantities().items() if q.scope != "snapshot"]

    def engine(names: Sequence[str]) -> Engine:
        return Engine(
            Rule(f"rule {i}", names[i % len(names)], above=99.0, for_=60.0)
            for i in range(SOME)
        )

    return {
        "usual": engine(WATCHED),
        "apart": engine(numbers),
        "window": lambda seconds: window,
        "at": window.collection_time,
    }


@cache
def in_flight() -> dict[str, object]:
    """Calls in flight, half of them streams, and a watch that looks for stalls."""
    collector = MetricsCollector()
    calls = [Call(collector, f"model-{i % 10}", "chat") for i in range(IN_FLIGHT)]
    for call in calls[::2]:
        call.chunk()
    return {"calls": calls, "watch": Watch(collector, [], stalls=Stalls())}


RECORD_BARS = (
    Bar("faster", 40, "prometheus_client:labels().observe"),
    Bar("faster", 150, "opentelemetry:record, one attribute"),
    Bar("faster", 10, "original:RecordLatency"),
)
# What a server told of a call; its total must be less than what the call took here.
TOLD = "9, 1, 2, 5, 100, 50, 20, 'stop'"

OPERATIONS = (
    Operation(
        "empty_record",
        "empty method (model, latency)",
        'empty.record_latency("m", 0.15)',
        one_model,
        instructions=2000,
    ),
    Operation(
        "record_latency",
        "record_latency by name",
        'mc.record_latency("m", 0.15)',
        one_model,
        (Bar("ratio", 1.6, "empty_record"), *RECORD_BARS),
        instructions=2000,
    ),
    Operation(
        "record_latency_names",
        "record_latency, two names in turn",
        'mc.record_latency("m", 0.15); mc.record_latency("n", 0.15)',
        one_model,
        (Bar("none", against="empty_record"),),
        values=2,
        instructions=1000,
    ),
    Operation(
        "empty_bound",
        "empty method (latency)",
        "empty_bound.record_latency(0.15)",
        one_model,
        instructions=2000,
    ),
    Operation(
        "bound_record_latency",
        "record_latency by bound recorder",
        "bound.record_latency(0.15)",
        one_model,
        (
            Bar("ratio", 2.0, "empty_bound"),
            *RECORD_BARS,
            Bar("none", against="prometheus_client:held child observe"),
            Bar("none", against="ddsketch:add"),
            Bar("none", against="hdrh:record_value"),
        ),
        instructions=2000,
    ),
    Operation(
        "record_tokens",
        "record_tokens",
        'mc.record_tokens("m", 500)',
        one_model,
        (
            Bar("ratio", 2.0, "empty_record"),
            Bar("none", against="original:RecordTokens"),
            Bar("none", against="prometheus_client:counter inc"),
        ),
        instructions=2000,
    ),
    Operation(
        "record_error",
        "record_error with a class",
        'mc.record_error("m", Failure)',
        one_model,
        (
            Bar("ratio", 3.0, "empty_record"),
            Bar("none", against="original:RecordError"),
        ),
        instructions=2000,
    ),
    Operation(
        "empty_chunk",
        "empty method (answer)",
        "empty_call.chunk(True)",
        one_model,
        instructions=2000,
    ),
    Operation(
        "chunk",
        "Call.chunk",
        "call.chunk(True)",
        one_model,
        (Bar("ratio", 1.8, "empty_chunk"),),
        instructions=2000,
    ),
    Operation(
        "empty_end",
        "empty method, the arguments of Call.end",
        f"empty_call.end(0, None, {TOLD})",
        one_model,
        instructions=1000,
    ),
    Operation(
        "call",
        "a finished call: Call(...) and Call.end(...)",
        f'Call(mc, "m", "chat").end("success", None, {TOLD})',
        one_model,
        (Bar("at most", 400), Bar("none", against="empty_end")),
        instructions=1000,
    ),
    Operation(
        "record_call",
        "record_call(...)",
        f'record_call(mc, "m", "chat", 100, {TOLD})',
        one_model,
        (Bar("at most", 400),),
        instructions=1000,
    ),
    Operation(
        "batch",
        f"record_latencies, {BATCH:,} float64, a value",
        'mc.record_latencies("m", batch)',
        one_model,
        (Bar("at most", 1.2),),
        values=BATCH,
        instructions=20,
    ),
    Operation(
        "segment_record_latency",
        "record_latency by name, in a segment",
        'mc.record_latency("m", 0.15)',
        in_segment,
        (Bar("ratio", 1.05, "record_latency"),),
        instructions=2000,
    ),
    Operation(
        "segment_bound",
        "record_latency by bound recorder, in a segment",
        "bound.record_latency(0.15)",
        in_segment,
        (Bar("ratio", 1.05, "bound_record_latency"),),
        instructions=2000,
    ),
    Operation(
        "segment_chunk",
        "Call.chunk, in a segment",
        "call.chunk(True)",
        in_segment,
        (Bar("ratio", 1.05, "chunk"),),
        instructions=2000,
    ),
    Operation(
        "segment_call",
        "a finished call, in a segment",
        f'Call(mc, "m", "chat").end("success", None, {TOLD})',
        in_segment,
        (Bar("ratio", 1.05, "call"),),
        instructions=1000,
    ),
    Operation(
        "segment_batch",
        f"record_latencies, {BATCH:,} float64, a value, in a segment",
        'mc.record_latencies("m", batch)',
        in_segment,
        (Bar("ratio", 1.05, "batch"),),
        values=BATCH,
        instructions=20,
    ),
    Operation(
        "attach",
        f"attach().snapshot() of {PROCESSES} processes of {SOME} models",
        "pool.snapshot()",
        several,
        (Bar("at most", 20e6),),
    ),
    Operation(
        "two_clocks",
        "two perf_counter() calls",
        "perf_counter(); perf_counter()",
        one_model,
    ),
    Operation(
        "time_block",
        "with mc.time(...): pass",
        'with mc.time("m"): pass',
        one_model,
        (Bar("beyond", 150, "two_clocks"),),
        instructions=1000,
    ),
    Operation(
        "get_model_metrics",
        "get_model_metrics",
        'mc.get_model_metrics("m")',
        plain_model,
        (Bar("faster", 1, "original:GetModelMetrics"),),
        instructions=500,
    ),
    Operation(
        "get_model_metrics_calls",
        "get_model_metrics of a model with calls",
        'mc.get_model_metrics("m")',
        called_model,
        (Bar("none", against="original:GetModelMetrics"),),
        instructions=500,
    ),
    Operation(
        "get_task_statistics",
        f"get_task_statistics with {MANY:,} models",
        "mc.get_task_statistics()",
        many_models,
        (Bar("at most", 2_000),),
        instructions=500,
    ),
    Operation(
        "snapshot",
        f"snapshot() of {MANY:,} models",
        "mc.snapshot()",
        many_models,
        (Bar("at most", 3e6),),
        instructions=2,
    ),
    Operation(
        "snapshot_models",
        f"snapshot().models of {MANY:,} models, all looked at",
        "len(mc.snapshot().models)",
        many_models,
        (Bar("at most", 3e6),),
        instructions=2,
    ),
    Operation(
        "rules",
        f"{SOME} rules of ten numbers evaluated over {SOME} models",
        "usual.evaluate(window, now=0.0, at=at)",
        rules,
        (Bar("at most", 5e6),),
    ),
    Operation(
        "rules_apart",
        f"{SOME} rules of a number each evaluated over {SOME} models",
        "apart.evaluate(window, now=0.0, at=at)",
        rules,
    ),
    Operation(
        "stalls",
        f"a look for stalls among {IN_FLIGHT:,} calls in flight of ten models",
        "watch.step()",
        in_flight,
        # A millisecond a second, at a look each 0.75 s.
        (Bar("at most", 0.75e6),),
    ),
    Operation(
        "export_json",
        f"export_json() of {SOME} models",
        "mc.export_json()",
        some_models,
        (
            Bar("at most", 0.3e6),
            Bar("none", against="original:ExportJSON of 100 models"),
        ),
        instructions=4,
    ),
    Operation(
        "from_json",
        f"Snapshot.from_json of {SOME} models",
        "Snapshot.from_json(document)",
        some_models,
        (Bar("at most", 3e6),),
        instructions=4,
    ),
    Operation(
        "text_page",
        f"Prometheus text page of {MANY:,} models, snapshot included",
        "render(mc.snapshot(), TEXT)",
        many_models,
        (
            Bar("at most", 4e6),
            Bar("faster", 10, "prometheus_client:same series"),
            Bar("none", against="prometheus_client:same series, only written"),
        ),
        instructions=1,
    ),
    Operation(
        "protobuf_page",
        f"Prometheus protobuf page of {MANY:,} models, snapshot included",
        "render(mc.snapshot(), PROTOBUF)",
        many_models,
        (Bar("at most", 4e6),),
        instructions=1,
    ),
)
BY_NAME = {operation.name: operation for operation in OPERATIONS}
