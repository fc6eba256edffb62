# SPDX-License-Identifier: MIT
"""Findings of now: on a page of metrics, under a table, and as alerts."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from ometrics import MetricsCollector
from ometrics.cli.findings import FindingLines
from ometrics.diagnosis import Findings
from ometrics.diagnosis.kinds import KINDS
from ometrics.export.prometheus import TEXT, render
from ometrics.rules.watch import Watch
from ometrics.rules.words import sentence
from ometrics.testing import FakeClock

PAGE = Path(__file__).parents[2] / "docs" / "diagnosis.md"


def failing(collector: MetricsCollector, count: int = 20) -> None:
    """Refused connections."""
    for _ in range(count):
        collector.record_error("llama3.2", "CONNECTION_FAILED")


def test_findings_are_a_metric() -> None:
    """One series for each, with model and kind, beside the numbers of the source."""
    clock = FakeClock()
    with MetricsCollector(clock=clock) as collector:
        failing(collector)
        findings = Findings(collector, clock=clock)
        page = render(collector.snapshot(), TEXT, [*findings()]).decode()

    assert (
        'ometrics_findings{finding="failing",gen_ai_request_model="llama3.2"} 1\n'
        in page
    )


def test_a_finding_is_looked_for_again_after_a_while() -> None:
    """Whoever asks often is told the same for five seconds."""
    clock = FakeClock()
    with MetricsCollector(clock=clock) as collector:
        findings = Findings(collector, clock=clock)
        assert [] == findings.current()
        failing(collector)
        assert [] == findings.current()
        clock.advance(5)

        assert ["failing"] == [finding.kind for finding in findings.current()]


def test_a_finding_is_told_of_when_it_begins_and_when_it_ends() -> None:
    """As an event and an alert; over when the last 15 minutes no longer show it."""
    clock = FakeClock()
    with MetricsCollector(clock=clock) as collector:
        channel = collector.subscribe(types=["alert"])
        watch = Watch(collector, [], findings=True, clock=clock)
        assert [] == watch.step()
        failing(collector)
        clock.advance(5)
        (began,) = watch.step()
        clock.advance(1000)
        for _ in range(30):
            collector.record_latency("llama3.2", 0.1)
        (ended,) = watch.step()

        assert ["firing", "resolved"] == [e.state for e in channel.drain()]  # type: ignore[union-attr]
    assert "failing: llama3.2: requests fail" == sentence(began)
    assert "failing: llama3.2: over after 16m40s" == sentence(ended)


def test_the_problems_stand_under_a_table() -> None:
    """A line for each of the first four; notes are for the doctor."""
    with MetricsCollector() as collector:
        for name in "abcdef":
            for _ in range(20):
                collector.record_error(name, "CONNECTION_FAILED")
        collector.record_latency("few", 1.0)
        console = Console(width=60, record=True, file=StringIO())
        console.print(FindingLines(Findings(collector)))
        lines = console.export_text().split("\n")

    assert "a: requests fail, most with CONNECTION_FAILED  certain" == lines[1]
    assert ["and 2 more findings", ""] == lines[5:]


def test_the_page_has_every_kind() -> None:
    """The table of the documentation lists each finding, in the same order."""
    rows = [
        line.split("`")[1]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]

    assert [*KINDS] == rows
