# SPDX-License-Identifier: MIT
"""Declared fields: one algebra for all read types, over their merge rules."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import reduce
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import sample_snapshot, snapshots

from ometrics.fields import UINT64_MAX, Field, Part, fields_of
from ometrics.histogram import DEFAULT_BUCKETS, LatencyHistogram
from ometrics.models import CALL_HISTOGRAMS, PHASES, CallMetrics, PerformanceMetrics
from ometrics.snapshot import ResourceMetrics, Snapshot, TaskStatistics

READ_TYPES = (
    *(Snapshot, PerformanceMetrics, CallMetrics, TaskStatistics, ResourceMetrics),
)
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


@pytest.mark.parametrize("owner", READ_TYPES)
def test_every_field_is_declared(owner: type[msgspec.Struct]) -> None:
    """A field without a declaration would be in no merge and no format."""
    declared = [field.name for field in fields_of(owner)]

    assert set(owner.__struct_fields__) <= set(declared)
    assert len(declared) == len(set(declared))


@pytest.mark.parametrize("owner", READ_TYPES)
def test_docstrings_list_the_fields(owner: type[msgspec.Struct]) -> None:
    """`help()` says what each attribute is, in the words of the declaration."""
    for field in fields_of(owner):
        if field.name in owner.__struct_fields__:
            assert f"{field.name}: {field.help}" in str(owner.__doc__)


def test_every_exported_field_has_one_meaning() -> None:
    """Fields of one metric differ in their labels; all help is a sentence."""
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for field in (field for owner in READ_TYPES for field in fields_of(owner)):
        assert field.help.endswith(".")
        if field.metric is not None and not isinstance(field, Part):
            key = field.metric.name, tuple(field.labels.items())
            assert key not in seen
            seen.add(key)


def test_phases_are_histograms_of_a_call() -> None:
    """The phases are declared in the order in which they pass."""
    assert PHASES == ("connect", "load", "prefill", "decode", "residual", "network")
    assert set(PHASES) < set(CALL_HISTOGRAMS)


@given(snapshots(), snapshots())
def test_merge_adds_every_counter_and_histogram(one: Snapshot, other: Snapshot) -> None:
    """Of each model and call, every count of the merge is the sum of both."""
    try:
        merged = one.merge(other)
    except ValueError:  # other buckets
        return
    for name, model in merged.models.items():
        parts = [s.models[name] for s in (one, other) if name in s.models]

        _assert_added(model, parts)
        for operation, call in model.calls.items():
            calls = [p.calls[operation] for p in parts if operation in p.calls]

            _assert_added(call, calls)


def _assert_added(merged: object, parts: list[object]) -> None:
    for field in fields_of(type(merged)):
        values = [field.of(part) for part in parts]
        if field.kind == "counter" and field.by is None:
            known = [v for v in values if v is not None]
            expected = min(sum(known), UINT64_MAX) if known else None

            assert expected == field.of(merged), field.name
        elif field.kind == "counter":
            for key, count in field.of(merged).items():
                total = sum(value.get(key, 0) for value in values)

                assert min(total, UINT64_MAX) == count, field.name
        elif field.kind == "histogram":
            total = sum(value.count for value in values)

            assert min(total, UINT64_MAX) == field.of(merged).count, field.name


@given(st.lists(snapshots(buckets=DEFAULT_BUCKETS), min_size=1, max_size=4))
def test_several_at_once_are_one_after_another(several: list[Snapshot]) -> None:
    """However many are merged in one call, every field is the same."""
    first, *others = several

    assert reduce(lambda total, one: total.merge(one), several) == first.merge(*others)


def test_delta_undoes_merge_of_what_came_later() -> None:
    """Later = earlier + gained, so later - earlier = gained, for every count."""
    earlier = sample_snapshot()
    gained = CallMetrics(
        operation="chat",
        successful_reqs=2,
        latency=LatencyHistogram.of([0.5, 0.7]),
        prompt_tokens=7,
        prompt_tokens_known=2,
        done_reasons={"stop": 2},
    )
    call = earlier.models["qwen2.5:0.5b"].calls["chat"]

    left = call.merge(gained) - call

    assert left.successful_reqs == 2
    assert left.latency.count == 2
    assert left.prompt_tokens == 7
    assert left.done_reasons == {"stop": 2}
    assert left.errors == {}
    assert left.in_flight == call.in_flight
    assert left.oldest_in_flight_seconds == call.oldest_in_flight_seconds


@pytest.mark.parametrize(
    "field",
    [f for f in fields_of(CallMetrics) if f.kind == "counter" and f.by is None],
    ids=lambda field: field.name,
)
def test_a_count_that_went_back_is_refused(field: Field) -> None:
    """Every counter notices, by name, that two states are not in this order."""
    more = CallMetrics(operation="chat", **{field.name: 5})
    less = CallMetrics(operation="chat", **{field.name: 4})

    with pytest.raises(ValueError, match=f"{field.name} went back from 5 to 4"):
        less - more


def test_what_belongs_to_a_gauge_is_that_of_the_largest() -> None:
    """The age of the stream that is silent longest, in whatever order they come."""
    calls = [
        CallMetrics(
            operation="chat",
            in_flight=1,
            oldest_in_flight_seconds=age,
            longest_silence_seconds=silence,
            silent_in_flight_seconds=age if silence else None,
        )
        for age, silence in ((9.0, 1.0), (3.0, 2.0), (2.0, 2.0), (20.0, None))
    ]

    for several in permutations(calls):
        whole = reduce(CallMetrics.merge, several)
        assert (2.0, 3.0) == (
            whole.longest_silence_seconds,
            whole.silent_in_flight_seconds,
        )
        assert whole == several[0].merge(*several[1:])


def test_extremes_are_unknown_where_one_side_does_not_know() -> None:
    """A window that has tasks and no minimum makes the minimum of both unknown."""
    known = TaskStatistics(completed_tasks=1, min_completion_ms=5.0)
    unknown = TaskStatistics(completed_tasks=1)
    nothing = TaskStatistics()

    assert known.merge(unknown).min_completion_ms is None
    assert known.merge(nothing).min_completion_ms == 5.0
    assert nothing.merge(known).min_completion_ms == 5.0
    assert (
        known.merge(
            TaskStatistics(completed_tasks=1, min_completion_ms=3.0)
        ).min_completion_ms
        == 3.0
    )


def test_resources_of_two_processes_are_the_latest() -> None:
    """Gauges of a process do not add up; the last report counts, in either order."""
    early = ResourceMetrics(
        memory_usage_mb=9.0, cpu_usage_percent=9.0, goroutine_count=9, timestamp=NOW
    )
    late = ResourceMetrics(
        memory_usage_mb=1.0,
        cpu_usage_percent=1.0,
        goroutine_count=1,
        timestamp=NOW + timedelta(seconds=1),
    )

    assert early.merge(late) is late
    assert late.merge(early) is late
    assert late - early is late
