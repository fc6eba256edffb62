# SPDX-License-Identifier: MIT
"""Sources: several things that have numbers, read as one."""

from __future__ import annotations

import pytest

from ometrics import MetricsCollector
from ometrics.sources import merge


def test_merged_sources_are_asked_anew_each_time() -> None:
    """What is recorded after `merge()` is in the next snapshot."""
    one, other = MetricsCollector(), MetricsCollector()
    both = merge(one, other)

    one.record_latency("m", 1.0)
    other.record_latency("m", 2.0)

    assert both.snapshot().models["m"].total_requests == 2

    other.record_latency("m", 3.0)

    assert both.snapshot().models["m"].total_requests == 3


def test_a_merge_of_merges_is_the_merge_of_all() -> None:
    """A merged source is a source like any other."""
    parts = [MetricsCollector() for _ in range(3)]
    for part in parts:
        part.record_tokens("m", 5)

    nested = merge(merge(parts[0], parts[1]), parts[2]).snapshot()

    assert nested.models["m"].tokens_processed == 15
    assert nested.instance_id == merge(*parts).snapshot().instance_id


def test_nothing_cannot_be_merged() -> None:
    """No source has no snapshot: refused at once."""
    with pytest.raises(ValueError, match="at least one source"):
        merge()
