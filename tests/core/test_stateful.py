# SPDX-License-Identifier: MIT
"""Any sequence of calls, against the oracle: what a collector says is what was told."""

from __future__ import annotations

import logging
import math
import pickle
from array import array
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from oracle import Oracle, OracleSnapshot, facts

from ometrics import (
    DEFAULT_BUCKETS,
    GENAI_DURATION_BUCKETS,
    ErrorTimeout,
    MetricsCollector,
    ModelRecorder,
    OllamaError,
    Snapshot,
)
from ometrics.testing import FakeClock

NAMES = st.sampled_from(
    ["llama3.2", "qwen", "", "é\n\x00", "a\ud800", "x" * 256, "x" * 300, "__overflow__"]
)
LATENCIES = st.one_of(
    st.floats(1e-6, 3600.0),
    st.sampled_from(DEFAULT_BUCKETS + GENAI_DURATION_BUCKETS),
    st.integers(0, 10_000),
    st.floats(0.0, 1e-6),
    st.floats(3600.0, 1e6),
    st.sampled_from([math.nan, math.inf, -math.inf, -1.0, -1, 10**400]),
    st.timedeltas(timedelta(0), timedelta(days=1)),
    st.decimals(0, 100, places=6).map(Decimal),
    st.fractions(0, 100),
    st.booleans(),
)
ERRORS = st.one_of(
    st.sampled_from([ErrorTimeout, ErrorTimeout("slow"), ValueError, KeyError("k")]),
    st.builds(OllamaError, st.sampled_from(["A", "_OTHER", "long" * 99]), st.just("")),
    st.integers(0, 40).map("E{}".format),
)
REFUSED = st.sampled_from([None, "0.1", b"1", [], object(), 1j])
MILLISECONDS = st.one_of(
    st.floats(0.0, 1e7), st.integers(0, 1000), st.just(math.nan), st.just(-1)
)

Pair = tuple[Snapshot, OracleSnapshot]


class Collector(RuleBasedStateMachine):
    """One collector, one oracle, and the snapshots that both gave."""

    pairs = Bundle("pairs")

    @initialize(max_models=st.sampled_from([1000, 3]))
    def begin(self, max_models: int) -> None:
        """Make both; with few names kept apart there are no bound recorders."""
        self.clock = FakeClock()
        self.oracle = Oracle(max_models=max_models)
        self.collector = MetricsCollector(max_models=max_models, clock=self.clock)
        self.started = self.clock.monotonic()
        self.recorders: dict[str, ModelRecorder] = {}

    @rule(name=NAMES, latency=LATENCIES)
    def record(self, name: str, latency: object) -> None:
        """One success."""
        self.collector.record_latency(name, latency)  # type: ignore[arg-type]
        self.oracle.record_latency(name, latency)

    @rule(name=NAMES, latencies=st.lists(LATENCIES, max_size=8))
    def batch(self, name: str, latencies: list[object]) -> None:
        """Many, as an iterable."""
        self.collector.record_latencies(name, iter(latencies))  # type: ignore[arg-type]
        self.oracle.record_latencies(name, latencies)

    @rule(name=NAMES, latencies=st.lists(st.floats(-1.0, 1e4), max_size=200))
    def buffer(self, name: str, latencies: list[float]) -> None:
        """Many, as a buffer."""
        self.collector.record_latencies(name, array("d", latencies))
        self.oracle.record_latencies(name, latencies)

    @rule(name=NAMES, error=ERRORS)
    def fail(self, name: str, error: object) -> None:
        """One failure."""
        self.collector.record_error(name, error)  # type: ignore[arg-type]
        self.oracle.record_error(name, error)

    @rule(name=NAMES, count=st.integers(-2, 2**40))
    def tokens(self, name: str, count: int) -> None:
        """Tokens."""
        self.collector.record_tokens(name, count)
        self.oracle.record_tokens(name, count)

    @rule(success=st.booleans(), duration=MILLISECONDS)
    def task(self, success: bool, duration: float) -> None:
        """One task."""
        self.collector.record_task_completion(success, duration)
        self.oracle.record_task_completion(success, duration)

    @rule(memory=MILLISECONDS, cpu=MILLISECONDS, count=st.integers(0, 2**40))
    def resources(self, memory: float, cpu: float, count: int) -> None:
        """What the process uses."""
        self.collector.update_resource_metrics(memory, cpu, count)
        self.oracle.update_resource_metrics(memory, cpu, count)

    @precondition(lambda self: self.oracle.max_models == 1000)
    @rule(name=NAMES.filter(lambda name: len(name) < 256 and name.isascii()))
    def bound(self, name: str) -> None:
        """A bound recorder, made once: before or after resets and removals."""
        recorder = self.recorders.setdefault(name, self.collector.model(name))
        recorder.record_latency(0.25)
        recorder.record_latencies([0.5])
        recorder.record_error("E")
        recorder.record_tokens(7)
        self.oracle.record_latencies(name, [0.25, 0.5])
        self.oracle.record_error(name, "E")
        self.oracle.record_tokens(name, 7)

    @rule(name=NAMES.filter(lambda name: len(name) < 256 and name.isascii()))
    def reset_within_timer(self, name: str) -> None:
        """What a timer began before a reset counts after it."""
        with self.collector.time(name):
            self.collector.reset_metrics()
            self.started = self.clock.monotonic()
        self.oracle.reset_metrics()
        self.oracle.record_latency(name, 0.0)

    @rule(name=NAMES, latency=REFUSED)
    def refuse(self, name: str, latency: object) -> None:
        """A wrong type raises, and counts nothing."""
        with pytest.raises(TypeError):
            self.collector.record_latency(name, latency)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            self.collector.record_latencies(name, [1.0, latency])  # type: ignore[list-item]
        with pytest.raises(TypeError):
            self.collector.record_task_completion(True, latency)  # type: ignore[arg-type]

    @rule(seconds=st.integers(0, 1000))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        """Forget a model."""
        removed = self.collector.remove_model(name)

        assert self.oracle.remove_model(name) == removed

    @rule(target=pairs)
    def snapshot(self) -> Pair:
        """Keep what both say now."""
        return self.collector.snapshot(), self.oracle.snapshot()

    @rule(target=pairs)
    def reset(self) -> Pair:
        """Clear both; what was cleared is kept."""
        pair = self.collector.reset_metrics(), self.oracle.reset_metrics()
        self.started = self.clock.monotonic()

        assert pair[1].facts() == facts(pair[0])

        return pair

    @rule(target=pairs, one=pairs, other=pairs)
    def merge(self, one: Pair, other: Pair) -> Pair:
        """Both together: the same in either order."""
        merged = one[0].merge(other[0])
        expected = one[1].merge(other[1])

        assert merged == other[0].merge(one[0])
        assert expected.facts(window=True) == facts(merged, window=True)

        return merged, expected

    @rule(one=pairs, two=pairs, three=pairs)
    def associate(self, one: Pair, two: Pair, three: Pair) -> None:
        """Three together: however they are grouped."""
        left = one[0].merge(two[0]).merge(three[0])

        assert left == one[0].merge(two[0].merge(three[0]))

    @rule(one=pairs, other=pairs)
    def undo(self, one: Pair, other: Pair) -> None:
        """A difference undoes a merge."""
        left = one[0].merge(other[0]).delta(other[0])

        assert one[1].facts(window=True) == facts(left, window=True)

    @rule(pair=pairs)
    def reload(self, pair: Pair) -> None:
        """Nothing is lost in JSON or a pickle."""
        assert pair[0] == Snapshot.from_json(pair[0].to_json())
        assert pair[0] == pickle.loads(pickle.dumps(pair[0]))

    @rule()
    def export(self) -> None:
        """The export is the snapshot."""
        exported = Snapshot.from_json(self.collector.export_json())

        assert self.oracle.snapshot().facts() == facts(exported)

    @rule(pair=pairs)
    def keep(self, pair: Pair) -> None:
        """A snapshot does not change when the collector goes on."""
        assert pair[1].facts(window=True) == facts(pair[0], window=True)

    @invariant()
    def agree(self) -> None:
        """Both say the same, in the same order."""
        if not hasattr(self, "oracle"):
            return
        snapshot = self.collector.snapshot()
        expected = self.oracle.snapshot()

        assert expected.facts() == facts(snapshot)
        assert list(expected.models) == list(snapshot.models)

        uptime = self.clock.monotonic() - self.started

        assert uptime == snapshot.uptime_seconds
        for model in snapshot.models.values():
            assert (
                model.total_requests / uptime if uptime else None
            ) == model.throughput


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Warnings of bad values are not this file's subject."""
    logging.getLogger("ometrics").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("ometrics").setLevel(logging.NOTSET)


class TestStateful(Collector.TestCase):  # type: ignore[misc,valid-type,name-defined]
    """Run it."""

    settings = settings(
        max_examples=60,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
