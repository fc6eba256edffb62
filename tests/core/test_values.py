# SPDX-License-Identifier: MIT
"""What the numbers mean: bad values, refused types, limits, and names."""

from __future__ import annotations

import gc
import logging
import math
import weakref
from array import array
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracle import Oracle, facts, label, quantile

from ometrics import LatencyHistogram, MetricsCollector, PerformanceMetrics
from ometrics._table import n_codes
from ometrics.testing import FakeClock

LIMIT = 2**64 - 1
BAD = {
    "nan": [math.nan, Decimal("NaN")],
    "infinite": [math.inf, 10**400, Decimal("1e400"), Decimal("Infinity")],
    "negative": [-1, -0.5, -math.inf, -(10**400), timedelta(seconds=-1), Fraction(-1)],
}


@pytest.fixture
def mc() -> MetricsCollector:
    """A collector."""
    return MetricsCollector()


@pytest.fixture(autouse=True)
def quiet(request: pytest.FixtureRequest) -> Any:
    """Warnings are looked at where they are the subject."""
    logger = logging.getLogger("ometrics")
    if "caplog" not in request.fixturenames:
        logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


def known(mc: MetricsCollector, model: str = "m") -> PerformanceMetrics:
    """A model's metrics that must be there."""
    metrics = mc.get_model_metrics(model)
    assert metrics is not None
    return metrics


class TestBadValues:
    """They are counted by reason; the request counts; its latency is unknown."""

    @pytest.mark.parametrize(
        ("reason", "value"),
        [(r, value) for r, values in BAD.items() for value in values],
    )
    def test_latency(self, mc: MetricsCollector, reason: str, value: Any) -> None:
        """One bad latency touches neither sum nor extremes nor buckets."""
        mc.record_latency("m", 0.5)
        mc.record_latency("m", value)
        mc.record_latencies("m", [0.25, value])

        metrics = known(mc)

        assert (4, 4, 2) == (
            metrics.total_requests,
            metrics.successful_reqs,
            metrics.latency_unknown,
        )
        assert LatencyHistogram.of([0.25, 0.5]) == metrics.latency_hist
        assert 0.375 == metrics.avg_latency
        assert {reason: 2} == mc.snapshot().invalid_values

    def test_buffer(self, mc: MetricsCollector) -> None:
        """The same in a buffer."""
        mc.record_latencies("m", array("d", [1.0, math.nan, -1.0, math.inf, -math.inf]))

        assert LatencyHistogram.of([1.0]) == known(mc).latency_hist
        assert (5, 4) == (known(mc).successful_reqs, known(mc).latency_unknown)
        assert {"nan": 1, "infinite": 1, "negative": 2} == mc.snapshot().invalid_values

    def test_task(self, mc: MetricsCollector) -> None:
        """A task of unknown duration is a task."""
        for value in (10, math.nan, -1, math.inf):
            mc.record_task_completion(True, value)

        tasks = mc.get_task_statistics()

        assert (4, 3, 10.0, 10.0) == (
            tasks.completed_tasks,
            tasks.duration_unknown,
            tasks.avg_completion_ms,
            tasks.max_completion_ms,
        )
        assert {"nan": 1, "infinite": 1, "negative": 1} == mc.snapshot().invalid_values

    def test_resources(self, mc: MetricsCollector) -> None:
        """What was told before stays."""
        mc.update_resource_metrics(1, 2, 3)
        before = mc.get_resource_metrics()
        for values in ((math.nan, 1, 1), (1, math.inf, 1), (1, 1, -1), (1, 1, 10**30)):
            mc.update_resource_metrics(*values)

        assert before == mc.get_resource_metrics()
        assert {"nan": 1, "infinite": 2, "negative": 1} == mc.snapshot().invalid_values

    def test_tokens(self, mc: MetricsCollector) -> None:
        """A negative number of tokens is none."""
        mc.record_tokens("m", 5)
        mc.record_tokens("m", -1)
        mc.record_tokens("m", -(10**30))

        assert 5 == known(mc).tokens_processed
        assert {"negative": 2} == mc.snapshot().invalid_values

    def test_a_warning_says_what_to_do(
        self, mc: MetricsCollector, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It names the value, its field, and what would have been right."""
        mc.record_latency("m", -0.5)
        mc.record_tokens("t", -3)
        mc.record_latencies("b", [1.0, float("nan")])
        mc.record_task_completion(True, float("inf"))
        rest = "counts as unknown (see `invalid_values`); give a finite number of at"

        assert [
            f"model 'm': latency -0.5 s is negative and {rest} least 0",
            f"model 't': number of tokens -3 is negative and {rest} least 0",
            f"model 'b': 1 of 2 latencies is nan and {rest} least 0",
            f"task duration inf ms is infinite and {rest} least 0",
        ] == [record.getMessage() for record in caplog.records]

    def test_warnings(
        self, mc: MetricsCollector, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One warning a model and reason, through the package's logger."""
        for _ in range(3):
            mc.record_latency("a", math.nan)
            mc.record_latency("a", -1)
            mc.record_latencies("b", [math.nan, math.nan])

        assert [("ometrics", "WARNING")] * 3 == [
            (r.name, r.levelname) for r in caplog.records
        ]
        for record, words in zip(
            caplog.records,
            [("'a'", "nan"), ("'a'", "negative"), ("'b'", "nan")],
            strict=True,
        ):
            assert all(word in record.getMessage() for word in words)

    def test_zero(self, mc: MetricsCollector) -> None:
        """Zero is a latency, negative zero the same one."""
        mc.record_latency("m", -0.0)
        mc.record_latency("m", 0)

        metrics = known(mc)

        assert 0 == metrics.latency_unknown
        assert ["0.0", "0.0"] == [str(metrics.min_latency), str(metrics.max_latency)]


class TestTypes:
    """What is a number, and what raises and counts nothing."""

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (True, 1.0),
            (False, 0.0),
            (2, 2.0),
            (Decimal("0.25"), 0.25),
            (Fraction(1, 4), 0.25),
            (timedelta(days=1, microseconds=1), 86400.000001),
        ],
    )
    def test_numbers(self, mc: MetricsCollector, value: Any, seconds: float) -> None:
        """Any real number and `timedelta`."""
        mc.record_latency("m", value)
        mc.record_latencies("m", [value])

        assert seconds == known(mc).max_latency
        assert 2 == known(mc).latency_hist.count

    @pytest.mark.parametrize(
        "kind", ["float64", "float32", "float16", "int8", "uint64"]
    )
    def test_numpy_scalars(self, mc: MetricsCollector, kind: str) -> None:
        """NumPy's scalars are numbers, also as tokens and durations."""
        np = pytest.importorskip("numpy")
        one = np.dtype(kind).type(1)
        mc.record_latency("m", one)
        mc.record_task_completion(np.True_, one)
        mc.update_resource_metrics(one, one, one)
        if one.dtype.kind in "iu":
            mc.record_tokens("m", one)

            assert 1 == known(mc).tokens_processed

        assert 1.0 == known(mc).max_latency
        assert 1.0 == mc.get_task_statistics().max_completion_ms

    @pytest.mark.parametrize("value", [None, "0.1", b"0.1", [0.1], {}, object(), 1j])
    def test_refused(self, mc: MetricsCollector, value: Any) -> None:
        """Everything else raises `TypeError` and counts nothing at all."""
        name = "a new name that is too long" * 20
        for call in (
            lambda: mc.record_latency(name, value),
            lambda: mc.record_latencies(name, [1.0, value]),
            lambda: mc.record_tokens(name, value),
            lambda: mc.record_task_completion(True, value),
            lambda: mc.update_resource_metrics(value, 1, 1),
            lambda: mc.update_resource_metrics(1, value, 1),
            lambda: mc.update_resource_metrics(1, 1, value),
            lambda: mc.model(name).record_latency(value),
        ):
            with pytest.raises(TypeError, match=r"."):
                call()

        assert Oracle().snapshot().facts() == facts(mc.snapshot())
        assert 0 == mc.snapshot().truncated_names

    @pytest.mark.parametrize("values", ["123", b"123", bytearray(b"123"), None, 5])
    def test_refused_batches(self, mc: MetricsCollector, values: Any) -> None:
        """Text is no batch of numbers, though it can be iterated."""
        with pytest.raises(TypeError):
            mc.record_latencies("m", values)

        assert {} == mc.snapshot().models

    def test_refused_takes_no_place(self) -> None:
        """A call that raised does not use up one of the names that are kept."""
        mc = MetricsCollector(max_models=1)
        for call in (mc.record_latency, mc.record_tokens, mc.record_error):
            with pytest.raises(TypeError):
                call("refused", None)  # type: ignore[operator]
        mc.record_latency("m", 0.1)

        assert ["m"] == list(mc.snapshot().models)

    @pytest.mark.parametrize("count", [1.0, 1.5, "5", None, Decimal(1), timedelta(1)])
    def test_tokens_are_integers(self, mc: MetricsCollector, count: Any) -> None:
        """There is no half token."""
        with pytest.raises(TypeError):
            mc.record_tokens("m", count)

        assert {} == mc.snapshot().models

    @pytest.mark.parametrize("error", [None, 5, int, object(), [], 1.5, b"CODE"])
    def test_errors(self, mc: MetricsCollector, error: Any) -> None:
        """An exception, its class, or a code."""
        with pytest.raises(TypeError):
            mc.record_error("m", error)

        assert {} == mc.snapshot().models

    @pytest.mark.parametrize("model", [None, 5, b"m", ["m"], ("m",), {}])
    def test_models(self, mc: MetricsCollector, model: Any) -> None:
        """A model is a `str`."""
        for call in (
            lambda: mc.record_latency(model, 0.1),
            lambda: mc.record_latencies(model, [0.1]),
            lambda: mc.record_latencies(model, []),
            lambda: mc.record_error(model, "E"),
            lambda: mc.record_tokens(model, 1),
            lambda: mc.model(model),
            lambda: mc.time(model),
            lambda: mc.remove_model(model),
            lambda: mc.get_model_metrics(model),
        ):
            with pytest.raises(TypeError):
                call()

        assert {} == mc.snapshot().models

    def test_task_in_milliseconds(self, mc: MetricsCollector) -> None:
        """A `timedelta` has its own unit: it is refused or converted, never misread."""
        try:
            mc.record_task_completion(True, timedelta(seconds=1))  # type: ignore[arg-type]
        except TypeError:
            expected = None
        else:
            expected = 1000.0

        assert expected == mc.get_task_statistics().max_completion_ms

    def test_str_subclass(self, mc: MetricsCollector) -> None:
        """A string of a class of its own is the same name."""

        class Name(str):
            __slots__ = ()

        mc.record_latency(Name("m"), 0.1)
        mc.record_latency("m", 0.1)

        assert 2 == known(mc, Name("m")).total_requests


class TestLimits:
    """Counters stop at 2^64 - 1 and say so."""

    def test_tokens(self, mc: MetricsCollector) -> None:
        """Exact up to the limit, past what a double can count."""
        mc.record_tokens("m", LIMIT - 1)

        assert LIMIT - 1 == known(mc).tokens_processed

        mc.record_tokens("m", 1)

        assert (LIMIT, 0) == (known(mc).tokens_processed, mc.snapshot().saturated)

        mc.record_tokens("m", 1)
        mc.record_tokens("m", 10**30)

        assert (LIMIT, 2) == (known(mc).tokens_processed, mc.snapshot().saturated)

    @pytest.mark.parametrize("seconds", [9.1e9, 9.3e9, 1.8e10])
    def test_long_latencies(self, mc: MetricsCollector, seconds: float) -> None:
        """584 years of nanoseconds can be added up."""
        mc.record_latency("m", seconds)

        assert int(seconds * 1e9) == known(mc).latency_hist.sum_ns
        assert (seconds, 0) == (known(mc).max_latency, mc.snapshot().saturated)

    @pytest.mark.parametrize("seconds", [1.9e10, 1e308, 10**300])
    def test_too_long_a_latency(self, mc: MetricsCollector, seconds: float) -> None:
        """One that is longer than that stops the sum, and that is counted."""
        mc.record_latency("m", seconds)

        assert (LIMIT, float(seconds)) == (
            known(mc).latency_hist.sum_ns,
            known(mc).max_latency,
        )
        assert 1 == mc.snapshot().saturated
        assert {} == mc.snapshot().invalid_values

    def test_sum(self, mc: MetricsCollector) -> None:
        """The sum of latencies stops; everything else goes on."""
        mc.record_latencies("m", [1e10, 1e10])
        mc.record_latencies("m", [1.0])
        mc.record_latency("m", 1.0)

        metrics = known(mc)

        assert (LIMIT, 4) == (metrics.latency_hist.sum_ns, metrics.latency_hist.count)
        assert 3 == mc.snapshot().saturated
        assert (
            LIMIT == mc.snapshot().merge(mc.snapshot()).models["m"].latency_hist.sum_ns
        )

    def test_tasks(self, mc: MetricsCollector) -> None:
        """The same for tasks."""
        for _ in range(2):
            mc.record_task_completion(True, 1e13)

        tasks = mc.get_task_statistics()

        assert (2, LIMIT) == (tasks.total_tasks, tasks.sum_ns)
        assert 1 == mc.snapshot().saturated


class TestModels:
    """Names, and how many are kept apart."""

    def test_overflow(self, caplog: pytest.LogCaptureFixture) -> None:
        """Beyond the limit all counts stay exact, under one name; one warning."""
        mc, oracle = MetricsCollector(max_models=3), Oracle(max_models=3)
        for target in (mc, oracle):
            for i in range(10):
                target.record_latency(f"m{i}", i)
                target.record_latencies(f"m{i}", [0.5, 1.5])
                target.record_error(f"m{i}", "E")
                target.record_tokens(f"m{i}", i)
        for i in range(10):
            mc.model(f"m{i}").record_latency(2.5)
            oracle.record_latency(f"m{i}", 2.5)

        assert oracle.snapshot().facts() == facts(mc.snapshot())
        assert ["m0", "m1", "m2", "__overflow__"] == list(mc.snapshot().models)
        assert 50 == mc.snapshot().total_requests
        assert 35 == mc.snapshot().overflowed_requests
        assert 1 == len(caplog.records)
        assert "__overflow__" in caplog.records[0].getMessage()

    def test_exactly_the_limit(self) -> None:
        """The last name that fits is kept; overflow itself takes no place."""
        mc = MetricsCollector(max_models=2)
        mc.record_latency("__overflow__", 0.1)
        for name in ("a", "b", "a", "b"):
            mc.record_latency(name, 0.1)

        assert {"__overflow__": 1, "a": 2, "b": 2} == {
            name: m.total_requests for name, m in mc.snapshot().models.items()
        }

    def test_room_again(self) -> None:
        """A removed name makes room; a reset makes room for all."""
        mc = MetricsCollector(max_models=1)
        mc.record_latency("a", 0.1)
        mc.record_latency("b", 0.1)
        mc.remove_model("a")
        mc.record_latency("b", 0.1)

        assert ["__overflow__", "b"] == list(mc.snapshot().models)

        mc.reset_metrics()
        mc.record_latency("c", 0.1)

        assert ["c"] == list(mc.snapshot().models)

    def test_many(self) -> None:
        """A thousand models by default, whatever the order."""
        mc = MetricsCollector()
        for i in range(1001):
            mc.record_latency(f"m{i}", 0.1)

        assert (1001, 1, 1001) == (
            len(mc.snapshot().models),
            mc.snapshot().overflowed_requests,
            mc.snapshot().total_requests,
        )

    @pytest.mark.parametrize("letter", ["x", "é", "漢", "🦙"])
    def test_long_names(self, mc: MetricsCollector, letter: str) -> None:
        """Cut at 256 characters, of whatever size; each such record is counted."""
        mc.record_latency(letter * 256, 0.1)

        assert 0 == mc.snapshot().truncated_names

        mc.record_latency(letter * 257, 0.1)
        mc.record_error(letter * 1000, "E")
        mc.record_latencies(letter * 1000, [])

        assert {letter * 256: 3} == {
            name: m.total_requests for name, m in mc.snapshot().models.items()
        }
        assert 2 == mc.snapshot().truncated_names
        assert 3 == known(mc, letter * 300).total_requests
        assert mc.remove_model(letter * 300)

    def test_surrogates(self, mc: MetricsCollector) -> None:
        """A lone surrogate is replaced, so that nothing that leaves can break."""
        mc.record_latency("a\ud800b", 0.1)
        mc.record_error("a\ud800b", "E\udfff")

        (name,) = mc.snapshot().models
        event = mc.metrics_channel.get_nowait()

        assert name == event.model
        assert (name, 2) == (
            name.encode().decode(),
            known(mc, "a\ud800b").total_requests,
        )
        assert next(iter(known(mc, name).errors)).encode()
        assert mc.export_json()

    @pytest.mark.parametrize("name", ["", "\x00", 'a"b\n\\', "\u202e", "__overflow__"])
    def test_odd_names(self, mc: MetricsCollector, name: str) -> None:
        """Any other string is a name."""
        mc.record_latency(name, 0.1)

        assert [name] == list(mc.snapshot().models)
        assert 0 == mc.snapshot().truncated_names


class TestCodes:
    """How many codes are told apart."""

    def test_limit(self, mc: MetricsCollector) -> None:
        """32 a model; later ones are together; the failures are all there."""
        for i in range(40):
            mc.record_error("m", f"E{i}")
        mc.record_error("m", "E0")
        mc.record_error("m", "_OTHER")
        mc.record_error("other", "E39")

        errors = known(mc).errors

        assert {f"E{i}" for i in range(32)} | {"_OTHER"} == set(errors)
        assert (2, 1, 9, 42) == (
            errors["E0"],
            errors["E1"],
            errors["_OTHER"],
            known(mc).failed_reqs,
        )
        assert {"E39": 1} == known(mc, "other").errors

    def test_long(self, mc: MetricsCollector) -> None:
        """Codes are cut like names."""
        mc.record_error("m", "E" * 300)

        assert {"E" * 256: 1} == known(mc).errors

    def test_flood(self, mc: MetricsCollector) -> None:
        """A flood of codes costs bounded memory; every failure counts."""
        for i in range(20_000):
            mc.record_error(f"m{i % 100}", f"E{i}")

        metrics = mc.snapshot().models.values()

        assert 20_000 == sum(sum(m.errors.values()) for m in metrics)
        assert 5_000 > n_codes(mc)

    def test_classes_are_let_go(self, mc: MetricsCollector) -> None:
        """Classes that come and go are not kept alive by having been counted."""
        kinds = []
        for _ in range(3000):
            kind = type("Fresh", (Exception,), {})
            mc.record_error("m", kind)
            kinds.append(weakref.ref(kind))
        del kind
        gc.collect()

        assert {"Fresh": 3000} == known(mc).errors
        assert 500 > sum(kind() is not None for kind in kinds)

    def test_classes_of_one_name(self, mc: MetricsCollector) -> None:
        """Two classes of one name are one code."""
        for _ in range(2):
            mc.record_error("m", type("SameName", (Exception,), {}))

        assert {"SameName": 2} == known(mc).errors


class TestExactness:
    """All views, for any values."""

    @given(st.lists(st.floats(1e-6, 3600.0), min_size=1, max_size=300))
    def test_quantiles(self, values: list[float]) -> None:
        """Within 1.1 % of the sample's, and within minimum and maximum."""
        mc = MetricsCollector()
        mc.record_latencies("m", array("d", values))
        hist = known(mc).latency_hist
        for q in (0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0):
            value, exact = hist.quantile(q), quantile(values, q)

            assert value is not None
            assert min(values) <= value <= max(values)
            assert abs(value - exact) <= 0.011 * exact

    @given(st.lists(st.floats(0.0, 1e9), max_size=50))
    def test_batches_are_singles(self, values: list[float]) -> None:
        """One by one, as a list, as a buffer: the same histogram, and the oracle's."""
        mc, oracle = MetricsCollector(), Oracle()
        for value in values:
            mc.record_latency("one", value)
            oracle.record_latency("one", value)
        for name, batch in (("list", values), ("buffer", array("d", values))):
            mc.record_latencies(name, batch)
            oracle.record_latencies(name, values)

        assert oracle.snapshot().facts() == facts(mc.snapshot())

    @given(st.floats(0.0, 20.0))
    def test_labels(self, value: float) -> None:
        """A value is counted under its label and no other."""
        assert 1 == LatencyHistogram.of([value]).buckets[label(value)]


@given(st.floats(-9.2e9, 9.2e9))
@example(-1e-6)
@example(951_782_400.0 - 1e-6)  # the last microsecond before February 29, 2000
@example(-2_203_891_200.0)  # March 1, 1900, which followed February 28
def test_time_is_as_the_calendar_has_it(seconds: float) -> None:
    """A time is UTC to the microsecond, in any year that a clock can show."""
    clock = FakeClock(time=seconds)
    mc = MetricsCollector(clock=clock)
    ns = int(clock.time() * 1e9)
    expected = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(
        microseconds=ns // 1000
    )
    assert mc.snapshot().collection_time == expected
