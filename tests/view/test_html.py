# SPDX-License-Identifier: MIT
"""Notebooks and the interpreter: small tables and plots, whatever a name is."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from strategies import HOSTILE_NAME, sample_snapshot, snapshots

from ometrics import (
    CallMetrics,
    LatencyHistogram,
    MetricsCollector,
    PerformanceMetrics,
    Snapshot,
)

ALLOWED = {
    *("div", "span", "b", "table", "thead", "tbody", "tr", "th", "td"),
    *("svg", "rect", "title"),
}


def pages(snapshot: Snapshot) -> list[str]:
    """Of everything in a snapshot that shows itself."""
    shown = [snapshot, *snapshot.models.values()]
    shown += [model.latency_hist for model in snapshot.models.values()]
    return [thing._repr_html_() for thing in shown]


@settings(max_examples=25)
@given(snapshots())
def test_pages_are_well_formed_and_have_no_script(snapshot: Snapshot) -> None:
    """Balanced, of the elements that we use only, with no address and no handler."""
    for page in pages(snapshot):
        for element in ET.fromstring(page).iter():
            assert element.tag in ALLOWED
            assert not {name for name in element.attrib if name.startswith("on")}
            assert not {"href", "src"} & element.attrib.keys()


def test_names_are_escaped() -> None:
    """A model called like markup is text."""
    snapshot = sample_snapshot()
    pages_of_it = "".join(pages(snapshot))

    assert HOSTILE_NAME in snapshot.models
    assert "<b>&amp;" not in pages_of_it
    assert "&lt;b&gt;" in pages_of_it
    assert pages_of_it.replace("\n", "").isprintable()


def test_what_is_seen() -> None:
    """Numbers with three digits, phases, quantiles, and what was lost."""
    snapshot = sample_snapshot()
    text = "".join(ET.fromstring(snapshot._repr_html_()).itertext())
    model = snapshot.models["qwen2.5:0.5b"]
    more = "".join(ET.fromstring(model._repr_html_()).itertext())

    for word in ("22 requests", "6 errors", "614ms", "67.4", "names cut: 1"):
        assert word in text
    for word in ("decode 68.4%", "first chunk", "p95 p99"):
        assert word in more


def test_many_models_are_cut() -> None:
    """A thousand rows are no small table; the rest is told as a number."""
    mc = MetricsCollector()
    for i in range(60):
        mc.record_tokens(f"m{i}", 1)
        mc.record_error("busy", "X")
    page = mc._repr_html_()

    assert 51 == page.count("<tr>")
    assert "busy" in page
    assert "the busiest 50 of 61 models" in page


def test_a_histogram_shows_where_its_values_lie() -> None:
    """A bar a row that has values; nothing of nothing."""
    hist = LatencyHistogram.of([0.1] * 9 + [2.0])

    assert "10 values" in hist._repr_html_()
    assert 'width="240.0"' in hist._repr_html_()
    assert "no values" in LatencyHistogram()._repr_html_()


@pytest.mark.parametrize(
    ("thing", "line"),
    [
        (LatencyHistogram(), "<LatencyHistogram 0 values>"),
        (
            LatencyHistogram.of([0.1, 0.25]),
            "<LatencyHistogram 2 values, min 100ms, p50 100ms, p99 250ms, max 250ms>",
        ),
        (
            PerformanceMetrics(model="a\x1bb", failed_reqs=1),
            "<PerformanceMetrics 'a\\x1bb' 1 request, 1 error>",
        ),
        (
            CallMetrics(operation="chat", cancelled_reqs=2),
            "<CallMetrics chat 2 calls, 0 errors>",
        ),
        (sample_snapshot(), "<Snapshot 4 models, 22 requests, 6 errors in 2m00s>"),
    ],
)
def test_one_line_in_the_interpreter(thing: object, line: str) -> None:
    """What a person would ask first, with three digits."""
    assert line == repr(thing)
