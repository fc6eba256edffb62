# SPDX-License-Identifier: MIT
"""Thinning loses no count: every level, and what is read of it, adds up to the same."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from ometrics import MetricsCollector
from ometrics.store import Retention, Store
from ometrics.store.rows import Window, microseconds

BEGIN = datetime(2026, 11, 24, 9, tzinfo=timezone.utc)
SECONDS = microseconds(BEGIN) // 1_000_000


def window(start: float, end: float, *latencies: float, model: str = "m") -> Window:
    """A window with these latencies; times are seconds after BEGIN."""
    mc = MetricsCollector()
    for latency in latencies:
        mc.record_latency(model, latency)
    at = [microseconds(BEGIN + timedelta(seconds=s)) for s in (start, end)]
    return Window(at[0], at[1], mc.snapshot())


def fill(store: Store, hours: float, every: float = 60.0) -> list[float]:
    """Windows of a minute with one latency each; the latencies."""
    rng = random.Random(5)
    latencies = []
    for i in range(int(hours * 3_600 / every)):
        latencies.append(rng.lognormvariate(-1, 0.7))
        store.write("i", i + 1, window(i * every, (i + 1) * every, latencies[-1]))
    return latencies


def test_every_level_adds_up_to_everything(place: str) -> None:
    """Whatever is merged and deleted: the sum stays, at every step."""
    with Store(place) as store:
        latencies = fill(store, 5, every=300)
        whole = store.snapshot().models["m"].latency_hist
        for days in (0.3, 2, 40, 1_000):
            store.thin(SECONDS + days * 86_400)

            assert whole == store.snapshot().models["m"].latency_hist
            for step in (None, "1m", "5m", "7m", "1h", "1d"):
                steps = store.between(
                    BEGIN - timedelta(days=1), "2027-01-01", step=step
                )
                assert len(latencies) == sum(s.total_requests for s in steps)
        with store.database.reading() as connection:
            assert [(86_400, 1)] == connection.execute(
                text("SELECT step, COUNT(*) FROM windows GROUP BY step")
            ).all()
            assert [(len(latencies),)] == connection.execute(
                text("SELECT SUM(successful_reqs) FROM requests")
            ).all()


def test_quantiles_stay_within_their_bound(place: str) -> None:
    """Of an hour that became one window: within 1.1 % of the sorted latencies."""
    with Store(place) as store:
        latencies = sorted(fill(store, 1, every=60))
        store.thin(SECONDS + 100 * 86_400)
        (hour,) = store.between(BEGIN, "2026-11-24T10:00", step="1h")

        hist = hour.models["m"].latency_hist
        for q in (0.0, 0.25, 0.5, 0.95, 0.99, 1.0):
            rank = max(-(-int(q * 1000) * len(latencies) // 1000), 1)
            assert latencies[rank - 1] == pytest.approx(hist.quantile(q), rel=0.011)


def test_thinning_twice_changes_nothing(place: str) -> None:
    """What is done is done once."""
    with Store(place) as store:
        fill(store, 3, every=300)
        now = SECONDS + 40 * 86_400
        assert store.thin(now)
        assert 0 == store.thin(now)


def test_a_late_window_is_counted(place: str) -> None:
    """A window of an hour that has been merged already comes in addition."""
    with Store(place) as store:
        fill(store, 2, every=300)
        store.thin(SECONDS + 2 * 86_400)
        store.write("late", 1, window(600, 660, 0.5))
        for _ in range(2):
            steps = list(store.between(BEGIN, BEGIN + timedelta(hours=2), step="1h"))
            assert [13, 12] == [s.total_requests for s in steps]
            store.thin(SECONDS + 2 * 86_400)
        assert 25 == store.snapshot().total_requests


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    windows=st.lists(
        st.tuples(st.integers(0, 200_000), st.integers(1, 20_000)), max_size=12
    ),
    thinnings=st.lists(st.integers(0, 100 * 86_400), max_size=4),
    kept=st.tuples(*[st.integers(1, 40 * 86_400)] * 3),
)
def test_any_order_of_writing_and_thinning_adds_up(
    tmp_path_factory: pytest.TempPathFactory,
    windows: list[tuple[int, int]],
    thinnings: list[int],
    kept: tuple[int, int, int],
) -> None:
    """Windows of any length, thinned in between with any retention, count once."""
    path = tmp_path_factory.mktemp("thin") / "m.db"
    with Store(path, retention=Retention(*kept)) as store:
        for i, (start, length) in enumerate(windows):
            store.write("i", i + 1, window(start, start + length, 0.1))
            if i < len(thinnings):
                store.thin(SECONDS + thinnings[i])
        store.thin(SECONDS + max(thinnings, default=0))

        assert len(windows) == store.snapshot().total_requests
        for step in (None, "5m", "1h", "1d", "13m"):
            steps = list(store.between("2026-01-01", "2027-06-01", step=step))
            assert len(windows) == sum(s.total_requests for s in steps)


def test_different_buckets_are_merged_apart(tmp_path: Path) -> None:
    """Histograms with other buckets make windows of their own; none is lost."""
    other = MetricsCollector(buckets=(0.3, 0.6))
    other.record_latency("m", 0.4)
    at = microseconds(BEGIN)
    with Store(tmp_path / "m.db") as store:
        store.write("i", 1, window(0, 10, 0.1))
        store.write("j", 1, Window(at, at + 10, other.snapshot()))
        store.thin(SECONDS + 3 * 86_400)

        with store.database.reading() as connection:
            rows = connection.execute(
                text("SELECT SUM(successful_reqs), COUNT(*) FROM requests_hourly")
            )
            assert [(2, 2)] == rows.all()


@pytest.mark.parametrize("name", ["written", "minutes", "hours"])
def test_a_wrong_retention_is_refused(name: str) -> None:
    """The error quotes it."""
    with pytest.raises(ValueError, match="'never'"):
        Retention(**{name: "never"})


def test_instances_are_forgotten_with_their_hours(place: str) -> None:
    """A store that ten thousand processes wrote keeps none of them for ever."""
    with Store(place) as store:
        fill(store, 0.2)
        assert 12 == store.last_of("i")[0]
        store.thin(SECONDS + 800 * 86_400)
        assert 0 == store.last_of("i")[0]
