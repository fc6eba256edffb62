# SPDX-License-Identifier: MIT
"""The interface: every call of the collector and every field of what it returns."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import sys
import threading
import weakref
from array import array
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from forking import in_child, needs_fork
from oracle import LABELS, LAST_LABEL

import ometrics
from ometrics import (
    DEFAULT_BUCKETS,
    GENAI_DURATION_BUCKETS,
    ErrorConnectionFailed,
    ErrorTimeout,
    EventChannel,
    LatencyHistogram,
    MetricsCollector,
    ModelRecorder,
    OllamaError,
    PerformanceMetrics,
    ResourceMetrics,
    Snapshot,
    TaskStatistics,
    UnknownModelError,
)
from ometrics.testing import FakeClock

WALL = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock(time=WALL.timestamp())


@pytest.fixture
def mc(clock: FakeClock) -> MetricsCollector:
    """A collector at a known time."""
    return MetricsCollector(clock=clock)


def known(mc: MetricsCollector, model: str = "m") -> PerformanceMetrics:
    """A model's metrics that must be there."""
    metrics = mc.get_model_metrics(model)
    assert metrics is not None
    return metrics


class TestRecording:
    """The five ways to tell a collector something."""

    def test_example(self, tmp_path: Path) -> None:
        """The example of the README works as it stands."""
        with MetricsCollector() as mc:
            mc.record_latency("llama2", 0.150)
            mc.record_error("llama2", ErrorTimeout)
            mc.record_tokens("llama2", 500)
            mc.record_task_completion(True, 150.0)
            mc.update_resource_metrics(512, 45.5, 10)
            mc.export_json_to_file(tmp_path / "metrics.json")

        document = json.loads((tmp_path / "metrics.json").read_bytes())

        assert 2 == document["model_metrics"]["llama2"]["total_requests"]

    @pytest.mark.parametrize("latency", [0.25, timedelta(milliseconds=250)])
    def test_latency(self, mc: MetricsCollector, latency: float | timedelta) -> None:
        """A latency is a success; it comes out in float seconds."""
        assert mc.record_latency("m", latency) is None  # type: ignore[func-returns-value]

        metrics = known(mc)

        assert (1, 1, 0) == (
            metrics.total_requests,
            metrics.successful_reqs,
            metrics.failed_reqs,
        )
        assert 0.25 == metrics.total_latency
        assert isinstance(metrics.total_latency, float)

    def test_error(self, mc: MetricsCollector) -> None:
        """An error is a failure without a latency."""
        assert mc.record_error("m", ErrorTimeout) is None  # type: ignore[func-returns-value]

        metrics = known(mc)

        assert (1, 0, 1) == (
            metrics.total_requests,
            metrics.successful_reqs,
            metrics.failed_reqs,
        )
        assert metrics.avg_latency is None
        assert 0 == metrics.latency_hist.count

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ErrorTimeout, "TIMEOUT"),
            (ErrorTimeout("too slow"), "TIMEOUT"),
            (ErrorConnectionFailed(cause=OSError("x")), "CONNECTION_FAILED"),
            (OllamaError("MINE", "secret"), "MINE"),
            (ValueError, "ValueError"),
            (ValueError("a prompt"), "ValueError"),
            (KeyboardInterrupt(), "KeyboardInterrupt"),
            ("SOME_CODE", "SOME_CODE"),
        ],
    )
    def test_code_of_error(self, mc: MetricsCollector, error: Any, code: str) -> None:
        """An error counts under its code or class name, never its message."""
        mc.record_error("m", error)

        assert {code: 1} == known(mc).errors

    def test_tokens(self, mc: MetricsCollector) -> None:
        """Tokens add up; the average is per success."""
        mc.record_tokens("m", 500)
        mc.record_latency("m", 0.1)
        mc.record_latency("m", 0.1)
        mc.record_error("m", ErrorTimeout)
        assert mc.record_tokens("m", 250) is None  # type: ignore[func-returns-value]

        metrics = known(mc)

        assert 750 == metrics.tokens_processed
        assert 375.0 == metrics.avg_tokens_per_req

    def test_tasks(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """Tasks are told in milliseconds, as in the original."""
        mc.record_task_completion(True, 150.0)
        clock.advance(2)
        assert mc.record_task_completion(False, 50) is None  # type: ignore[func-returns-value]

        expected = TaskStatistics(
            completed_tasks=1,
            failed_tasks=1,
            sum_ns=200_000_000,
            min_completion_ms=50.0,
            max_completion_ms=150.0,
            last_updated=WALL + timedelta(seconds=2),
        )
        tasks = mc.get_task_statistics()

        assert expected == tasks
        assert (2, 100.0, 50.0) == (
            tasks.total_tasks,
            tasks.avg_completion_ms,
            tasks.success_rate,
        )

    def test_resources(self, mc: MetricsCollector) -> None:
        """Resources are the last told; `None` before the first."""
        assert mc.get_resource_metrics() is None

        mc.update_resource_metrics(1, 2, 3)
        assert mc.update_resource_metrics(512, 45.5, 10) is None  # type: ignore[func-returns-value]

        expected = ResourceMetrics(
            memory_usage_mb=512.0,
            cpu_usage_percent=45.5,
            goroutine_count=10,
            timestamp=WALL,
        )

        assert expected == mc.get_resource_metrics()

    @pytest.mark.parametrize(
        "values",
        [
            [0.1, 0.2, 5.5],
            (0.1, timedelta(seconds=0.2), 5.5),
            array("d", [0.1, 0.2, 5.5]),
            memoryview(array("d", [0.1, 0.2, 5.5])),
            memoryview(array("d", [0.1, 9, 0.2, 9, 5.5, 9]))[::2],
            {0.1: 1, 0.2: 2, 5.5: 3},
        ],
    )
    def test_batch(self, mc: MetricsCollector, values: Any) -> None:
        """A batch counts like its values one by one."""
        mc.record_latencies("m", values)

        assert (0.1, 5.5, 3) == (
            known(mc).min_latency,
            known(mc).max_latency,
            known(mc).successful_reqs,
        )
        assert LatencyHistogram.of([0.1, 0.2, 5.5]) == known(mc).latency_hist

    def test_batch_of_a_generator(self, mc: MetricsCollector) -> None:
        """Any iterable will do, also one that can be read only once."""
        mc.record_latencies("m", (i / 10 for i in range(5)))

        assert LatencyHistogram.of([0, 0.1, 0.2, 0.3, 0.4]) == known(mc).latency_hist

    @pytest.mark.parametrize("kind", ["f8", "f4", ">f8", "i4", "f2"])
    def test_batch_of_numpy(self, mc: MetricsCollector, kind: str) -> None:
        """NumPy arrays of any number, contiguous or not."""
        np = pytest.importorskip("numpy")
        values = np.arange(12, dtype=kind)
        mc.record_latencies("m", values)
        mc.record_latencies("m", values[::3])
        mc.record_latencies("m", values.astype("f8").reshape(3, 4))

        expected = [*range(12), *range(0, 12, 3), *range(12)]

        assert LatencyHistogram.of(expected) == known(mc).latency_hist

    def test_empty_batch(self, mc: MetricsCollector) -> None:
        """A batch of nothing is nothing."""
        mc.record_latencies("m", [])

        assert mc.get_model_metrics("m") is None
        assert {} == mc.snapshot().models

    def test_batch_that_fails(self, mc: MetricsCollector) -> None:
        """An iterable that raises counts nothing; its exception passes."""

        def values() -> Any:
            yield 0.1
            raise LookupError("midway")

        with pytest.raises(LookupError, match="midway"):
            mc.record_latencies("m", values())

        assert mc.get_model_metrics("m") is None

    def test_arguments_are_positional(self, mc: MetricsCollector) -> None:
        """Names of hot arguments are not part of the interface; signatures show it."""
        with pytest.raises(TypeError):
            mc.record_latency(model="m", latency=0.1)  # type: ignore[call-arg]

        assert "(self, model, latency, /)" == str(
            inspect.signature(MetricsCollector.record_latency)
        )


class TestReading:
    """What comes out."""

    def test_model_metrics(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """Every field of a model."""
        mc.record_latency("m", 0.1)
        clock.advance(1)
        mc.record_latency("m", 0.3)
        mc.record_error("m", ErrorTimeout)
        mc.record_error("m", "OTHER")
        mc.record_tokens("m", 10)
        clock.advance(1)

        metrics = known(mc)

        assert "m" == metrics.model
        assert (4, 2, 2) == (
            metrics.total_requests,
            metrics.successful_reqs,
            metrics.failed_reqs,
        )
        assert (0.4, 0.1, 0.3, 0.2) == (
            metrics.total_latency,
            metrics.min_latency,
            metrics.max_latency,
            metrics.avg_latency,
        )
        assert (2.0, 50.0) == (metrics.throughput, metrics.error_rate)
        assert (10, 5.0) == (metrics.tokens_processed, metrics.avg_tokens_per_req)
        assert {"TIMEOUT": 1, "OTHER": 1} == metrics.errors
        assert WALL + timedelta(seconds=1) == metrics.last_updated
        assert LatencyHistogram.of([0.1, 0.3]) == metrics.latency_hist
        assert 0.1 == metrics.latency_p50
        for percentile in ("p90", "p95", "p99", "p999"):
            assert 0.3 == getattr(metrics, f"latency_{percentile}")

    def test_nothing_is_none(self, mc: MetricsCollector) -> None:
        """Minimum, maximum, average and percentiles of nothing are unknown, not 0."""
        mc.record_error("m", ErrorTimeout)

        metrics = known(mc)

        assert (None,) * 5 == (
            metrics.min_latency,
            metrics.max_latency,
            metrics.avg_latency,
            metrics.latency_p50,
            metrics.latency_hist.quantile(1.0),
        )
        assert (None, 0.0) == (metrics.avg_tokens_per_req, metrics.total_latency)

        tasks = mc.get_task_statistics()

        assert (None,) * 4 == (
            tasks.avg_completion_ms,
            tasks.min_completion_ms,
            tasks.max_completion_ms,
            tasks.last_updated,
        )
        assert (0, 0.0) == (tasks.total_tasks, tasks.success_rate)
        assert 0.0 == mc.reset_metrics().merge(mc.snapshot()).task_statistics.sum_ns

    def test_average_is_of_latencies(self, mc: MetricsCollector) -> None:
        """Failures do not pull the average down, as they do in the original."""
        mc.record_latency("m", 0.2)
        mc.record_error("m", ErrorTimeout)

        assert 0.2 == known(mc).avg_latency

    def test_rates_of_nothing(self, mc: MetricsCollector) -> None:
        """Percentages of nothing are 0.0; no time has passed, so no rate is known."""
        mc.record_tokens("m", 5)

        metrics = known(mc)

        assert (0, 0.0, None) == (
            metrics.total_requests,
            metrics.error_rate,
            metrics.throughput,
        )
        assert 0.0 == mc.snapshot().overall_error_rate

    def test_unknown_model(self, mc: MetricsCollector) -> None:
        """Metrics of an unknown model are `None`; its summaries raise."""
        mc.model("m")

        assert mc.get_model_metrics("m") is None
        for summary in (mc.get_model_summary, mc.get_histogram_summary):
            with pytest.raises(UnknownModelError, match="'m'"):
                summary("m")

        assert issubclass(UnknownModelError, KeyError)

    def test_all_models(self, mc: MetricsCollector) -> None:
        """All models by name, in order of first record."""
        mc.record_error("b", "E")
        mc.record_latency("a", 0.1)
        mc.record_latency("b", 0.1)

        metrics = mc.get_all_model_metrics()

        assert isinstance(metrics, dict)
        assert [("b", 2), ("a", 1)] == [
            (name, model.total_requests) for name, model in metrics.items()
        ]

    def test_snapshot(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """Every field of a snapshot."""
        mc.record_latency("a", 0.1)
        mc.record_error("b", "E")
        mc.record_latency("b", float("nan"))
        mc.record_task_completion(True, 1)
        mc.update_resource_metrics(1, 2, 3)
        clock.advance(4)

        snapshot = mc.snapshot()

        assert isinstance(snapshot, Snapshot)
        assert (WALL, WALL + timedelta(seconds=4), 4.0) == (
            snapshot.start_time,
            snapshot.collection_time,
            snapshot.uptime_seconds,
        )
        assert {"a", "b"} == set(snapshot.models)
        assert mc.get_task_statistics() == snapshot.task_statistics
        assert mc.get_resource_metrics() == snapshot.resource_metrics
        assert (3, 1) == (snapshot.total_requests, snapshot.total_errors)
        assert pytest.approx(100 / 3) == snapshot.overall_error_rate
        assert {"nan": 1} == snapshot.invalid_values
        assert (0, 0, 5, 0, 0) == (
            snapshot.truncated_names,
            snapshot.saturated,
            snapshot.events_emitted,
            snapshot.events_dropped,
            snapshot.internal_errors,
        )
        assert mc.instance_id == snapshot.instance_id
        assert timezone.utc == snapshot.start_time.tzinfo

    def test_instances(self) -> None:
        """Every collector has an id of its own."""
        ids = {MetricsCollector().instance_id for _ in range(10)}

        assert 10 == len(ids)

    def test_copies_are_immutable(self, mc: MetricsCollector) -> None:
        """What was read does not change, and cannot be changed."""
        mc.record_latency("m", 0.1)
        metrics, snapshot = known(mc), mc.snapshot()
        mc.record_latency("m", 0.1)

        assert (1, 1) == (metrics.total_requests, snapshot.total_requests)
        for told in (metrics, snapshot, metrics.latency_hist, mc.get_task_statistics()):
            with pytest.raises(AttributeError):
                told.extra = 1  # type: ignore[union-attr]
            with pytest.raises(AttributeError):
                setattr(told, next(iter(told.__struct_fields__)), None)

    def test_export(self, mc: MetricsCollector, tmp_path: Path) -> None:
        """The export is UTF-8 JSON of the snapshot; the file has the same."""
        mc.record_latency("m", 0.1)
        mc.export_json_to_file(str(tmp_path / "m.json"))

        exported = mc.export_json()

        assert isinstance(exported, bytes)
        assert mc.snapshot() == Snapshot.from_json(exported)
        assert exported == (tmp_path / "m.json").read_bytes()

    def test_summaries(self, mc: MetricsCollector) -> None:
        """Three texts for people."""
        mc.record_latency("m", 0.1)

        assert "Total Requests: 1" in mc.get_summary()
        assert "Min Latency" in mc.get_model_summary("m")
        assert "100ms: 1 (100.00%)" in mc.get_histogram_summary("m")


class TestReset:
    """Clearing and forgetting."""

    def test_reset(self, mc: MetricsCollector, clock: FakeClock) -> None:
        """Everything is cleared and returned, and the clock starts again."""
        mc.record_latency("m", 0.1)
        mc.record_task_completion(True, 1)
        mc.update_resource_metrics(1, 2, 3)
        mc.record_latency("m", -1)
        clock.advance(5)
        before = mc.snapshot()

        assert before == mc.reset_metrics()

        clock.advance(1)
        after = mc.snapshot()

        assert {} == after.models
        assert TaskStatistics() == after.task_statistics
        assert after.resource_metrics is None
        assert {} == after.invalid_values
        assert (WALL + timedelta(seconds=5), 1.0) == (
            after.start_time,
            after.uptime_seconds,
        )
        assert 0 == after.events_emitted
        assert before.instance_id == after.instance_id

    def test_losses_start_again(self) -> None:
        """What was dropped before a reset is in the snapshot that it returned only."""
        mc = MetricsCollector()
        channel = mc.subscribe(capacity=1)
        mc.record_latencies("m", [1.0] * 11)
        cleared = mc.reset_metrics()

        assert (11, 10) == (cleared.events_emitted, cleared.events_dropped)
        assert 0 == mc.snapshot().events_dropped

        mc.record_latencies("m", [1.0] * 5)

        # the one that was still unread, and four of these
        assert (5, 5) == (
            mc.snapshot().events_emitted,
            mc.reset_metrics().events_dropped,
        )
        assert 15 == channel.dropped

    def test_drops_never_go_back(self, mc: MetricsCollector) -> None:
        """A channel that is gone takes nothing back."""
        channel: EventChannel | None = mc.subscribe(capacity=1)
        mc.record_latencies("m", [1.0] * 50)
        before = mc.snapshot()
        del channel
        gc.collect()

        assert before.events_dropped == mc.snapshot().events_dropped
        assert 0 == mc.snapshot().delta(before).events_dropped

    def test_remove(self, mc: MetricsCollector) -> None:
        """A removed model is unknown, and starts at zero when it comes back."""
        mc.record_latency("m", 0.1)
        mc.record_error("other", "E")

        assert mc.remove_model("m") is True
        assert mc.remove_model("m") is False
        assert mc.remove_model("never") is False
        assert mc.get_model_metrics("m") is None

        mc.record_latency("m", 0.2)

        assert 0.2 == known(mc).total_latency
        assert ["other", "m"] == list(mc.snapshot().models)

    def test_order_after_removal(self, mc: MetricsCollector) -> None:
        """The order of first record survives removals in between."""
        for name in "abcdef":
            mc.record_latency(name, 0.1)
        mc.remove_model("b")
        mc.record_latency("g", 0.1)

        assert list("acdefg") == list(mc.snapshot().models)


class TestBound:
    """Recorders that are bound to one model."""

    def test_calls(self, mc: MetricsCollector) -> None:
        """All that concerns one model."""
        recorder = mc.model("m")

        assert isinstance(recorder, ModelRecorder)
        assert "m" == recorder.name

        recorder.record_latency(0.1)
        recorder.record_latencies([0.2, 0.3])
        recorder.record_error(ErrorTimeout)
        recorder.record_tokens(7)
        with recorder.time():
            pass

        metrics = known(mc)

        assert (5, 1, 7) == (
            metrics.total_requests,
            metrics.failed_reqs,
            metrics.tokens_processed,
        )

    @pytest.mark.parametrize("recorded", [True, False])
    @pytest.mark.parametrize(
        "forget", [MetricsCollector.reset_metrics, lambda mc: mc.remove_model("m")]
    )
    def test_survives(
        self,
        mc: MetricsCollector,
        forget: Callable[[MetricsCollector], Any],
        recorded: bool,
    ) -> None:
        """A recorder and a timer stay valid across resets and removals."""
        recorder, timer = mc.model("m"), mc.time("m")
        if recorded:
            recorder.record_latency(0.1)
        forget(mc)
        with timer:
            forget(mc)
        recorder.record_latency(0.2)
        mc.record_latency("m", 0.3)
        del timer
        gc.collect()

        assert 3 == known(mc).total_requests
        assert 3 == mc.snapshot().total_requests

    @needs_fork
    @pytest.mark.fork
    def test_survives_fork(self, mc: MetricsCollector) -> None:
        """In a forked child it counts from zero, whether recorded before or not."""
        used, fresh = mc.model("used"), mc.model("fresh")
        mc.model("fresh")  # the last name that was looked up
        used.record_latency(0.1)

        def child() -> Any:
            mc.record_latency("fresh", 1)
            mc.record_latency("used", 1)
            fresh.record_latency(1)
            used.record_latency(1)
            mc.record_latency("fresh", 1)
            models = mc.snapshot().models.values()
            return {m.model: m.total_requests for m in models}

        assert {"fresh": 3, "used": 2} == in_child(child)
        assert {"used"} == set(mc.snapshot().models)

    def test_keeps_collector(self) -> None:
        """A recorder is enough to keep counting; what it holds is let go with it."""
        mc = MetricsCollector()
        recorder, alive = mc.model("m"), weakref.ref(mc)
        del mc
        gc.collect()
        recorder.record_latency(0.1)

        assert alive() is not None

        del recorder
        gc.collect()

        assert alive() is None


@needs_fork
@pytest.mark.fork
class TestFork:
    """A forked child is a new instance."""

    def test_starts_at_zero(self, mc: MetricsCollector) -> None:
        """All counts, with an id of its own; the parent's stay."""
        mc.record_latency("m", 0.1)
        mc.record_task_completion(True, 1)
        mc.update_resource_metrics(1, 2, 3)
        mc.record_latency("m", -1)
        before = mc.snapshot()

        def child() -> Any:
            now = mc.snapshot()
            return [
                now.total_requests,
                now.task_statistics.total_tasks,
                now.resource_metrics is None,
                now.invalid_values,
                now.events_emitted,
                now.instance_id,
            ]

        *counts, identity = in_child(child)

        assert [0, 0, True, {}, 0] == counts
        assert before.instance_id != identity
        assert before == mc.snapshot()

    def test_events_are_the_parents(self) -> None:
        """What the parent emitted is neither read nor dropped once more in a child."""
        mc = MetricsCollector(channel_capacity=5)
        mc.record_latencies("m", [0.1] * 20)
        mc.metrics_channel.get_nowait()  # the others are now in Python's hands

        def child() -> Any:
            mc.record_latency("m", 0.5)
            values = [event.value for event in mc.metrics_channel.drain()]
            return [values, mc.metrics_channel.dropped, mc.snapshot().events_dropped]

        assert [[0.5], 0, 0] == in_child(child)

    def test_child_of_child(self, mc: MetricsCollector) -> None:
        """Each generation starts at zero."""
        mc.record_latency("m", 0.1)

        def child() -> Any:
            mc.record_latency("m", 0.1)
            ids = [mc.instance_id, *in_child(lambda: [count(), mc.instance_id])]
            return [count(), *ids]

        def count() -> int:
            return mc.snapshot().total_requests

        mine, child_id, theirs, grandchild_id = in_child(child)

        assert (1, 0) == (mine, theirs)
        assert 3 == len({mc.instance_id, child_id, grandchild_id})


class TestLifetime:
    """Beginning and end."""

    def test_close(self, mc: MetricsCollector) -> None:
        """Closing ends the channels, not the counting; twice is once."""
        mc.record_latency("m", 0.1)
        mc.close()
        mc.close()
        mc.record_latency("m", 0.1)
        mc.record_task_completion(True, 1)

        assert [0.1] == [event.value for event in mc.metrics_channel]
        assert 2 == known(mc).total_requests
        assert 1 == mc.snapshot().events_emitted
        assert [] == list(mc.subscribe())

    def test_context_manager(self, clock: FakeClock) -> None:
        """Leaving the block closes; an exception passes."""
        with pytest.raises(LookupError), MetricsCollector(clock=clock) as mc:
            raise LookupError

        assert mc.metrics_channel.closed

    def test_is_collected(self) -> None:
        """A collector that nobody uses goes away, its channels with it."""
        gone = weakref.ref(MetricsCollector())
        gc.collect()

        assert gone() is None

    @pytest.mark.parametrize(
        "arguments",
        [
            {"buckets": ()},
            {"buckets": (1.0, 0.5)},
            {"buckets": (0.0,)},
            {"buckets": (float("nan"),)},
            {"buckets": (1.0, float("inf"))},
            {"max_models": 0},
            {"channel_capacity": 0},
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any]) -> None:
        """Each is refused at once."""
        with pytest.raises(ValueError, match=r"."):
            MetricsCollector(**arguments)

    def test_unknown_arguments(self) -> None:
        """Only the documented keywords, no positions."""
        with pytest.raises(TypeError):
            MetricsCollector(bucket=(1.0,))  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            MetricsCollector(DEFAULT_BUCKETS)  # type: ignore[misc]

    def test_import_starts_nothing(self) -> None:
        """Importing starts no thread and loads no optional package."""
        assert not {t.name for t in threading.enumerate() if "ometrics" in t.name}
        assert "0.1.0" == ometrics.__version__
        assert set(ometrics.__all__) <= set(dir(ometrics)) | {
            *("export", "ollama", "openai", "serve", "testing"),
        }


class TestBuckets:
    """Labels of the user's bounds."""

    def test_default(self, mc: MetricsCollector) -> None:
        """The original's eleven; bounds are inclusive, the last takes the rest."""
        for bound in DEFAULT_BUCKETS:
            mc.record_latency("m", bound)
        mc.record_latency("m", 3600)

        labels = [*LABELS, LAST_LABEL]
        buckets = known(mc).latency_hist.buckets

        assert labels == list(buckets)
        assert [1] * 10 + [2] == list(buckets.values())

    def test_own(self) -> None:
        """Own bounds make labels in the same manner."""
        mc = MetricsCollector(buckets=[0.0015, 1, 90])
        for latency in (0.0015, 0.0016, 1, 1.1, 100):
            mc.record_latency("m", latency)

        assert {"1.5ms": 1, "1s": 2, "1m30s+": 2} == known(mc).latency_hist.buckets

    def test_beyond_64_bits(self) -> None:
        """A bound may be any finite number, however many nanoseconds it is."""
        mc = MetricsCollector(buckets=[1, 1e300])
        mc.record_latency("m", 2)
        (first, last) = known(mc).latency_hist.buckets.items()

        assert (("1s", 0), 1) == (first, last[1])
        snapshot = mc.snapshot()

        assert snapshot == Snapshot.from_json(snapshot.to_json())

    def test_genai(self) -> None:
        """The standard's bounds are ready made."""
        mc = MetricsCollector(buckets=GENAI_DURATION_BUCKETS)
        mc.record_latency("m", 0.01)
        mc.record_latency("m", 81.92)
        buckets = known(mc).latency_hist.buckets

        assert 14 == len(buckets)
        assert (1, 1) == (buckets["10ms"], buckets["1m21.92s+"])


def test_threads_see_one_collector() -> None:
    """Threads and tasks record into one collector, and nothing is lost."""
    mc = MetricsCollector()

    async def work() -> None:
        for _ in range(100):
            async with mc.time("m"):
                await asyncio.sleep(0)

    threads = [
        threading.Thread(target=lambda: asyncio.run(work()), name=str(i))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 400 == known(mc).successful_reqs


def test_repr(mc: MetricsCollector) -> None:
    """A repr names the object and reads no counts."""
    assert mc.instance_id[:8] in repr(mc)
    assert "'m'" in repr(mc.model("m"))
    assert sys.getsizeof(mc) > 0
