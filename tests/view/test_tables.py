# SPDX-License-Identifier: MIT
"""Tables and plots in a terminal: they fit, they are harmless, they say it all."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")

from cli_runs import environment
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.cells import cell_len
from rich.console import Console
from strategies import sample_snapshot, snapshots

from ometrics import (
    CallMetrics,
    LatencyHistogram,
    MetricsCollector,
    PerformanceMetrics,
    Snapshot,
)
from ometrics.cli.show import details
from ometrics.testing import FakeClock
from ometrics.view import tables
from ometrics.view.histogram_plot import HistogramPlot
from ometrics.view.live import SPARKS, LiveTable
from ometrics.view.summary import model_summary
from ometrics.windows import Windows

ROOT = Path(__file__).parents[2]


def drawn(what: object, columns: int) -> list[str]:
    """The lines that a console of this width gets."""
    file = io.StringIO()
    Console(file=file, width=columns, markup=False).print(what)
    return file.getvalue().splitlines()


@settings(max_examples=25)  # a drawing takes 50 ms
@given(snapshots(), st.integers(20, 200))
def test_everything_fits_and_is_harmless(snapshot: Snapshot, columns: int) -> None:
    """Whatever was counted under whatever name, no line is too wide or has controls."""
    parts = [tables.report(snapshot), *map(details, snapshot.models.values())]
    for line in (line for part in parts for line in drawn(part, columns)):
        assert cell_len(line) <= columns
        assert line.isprintable()


def test_quantiles_are_marked_in_their_rows() -> None:
    """p50 where half of the values are reached, p95 and p99 at the tail."""
    hist = LatencyHistogram.of([0.1] * 90 + [2.0] * 10)
    lines = drawn(HistogramPlot(hist), 100)

    assert "◂ p50" in lines[0]
    assert "◂ p95 p99" in lines[-1]
    assert ["no latencies yet"] == drawn(HistogramPlot(LatencyHistogram()), 100)


def test_sparkline_moves_once_a_tick() -> None:
    """A character a second in which a call succeeded, the newest ones only."""
    now = 0.0
    mc = MetricsCollector()
    table = LiveTable(mc, clock=lambda: now)
    for i in range(30):
        mc.record_latency("m", 0.1 * (1 + i % 2))
        for _ in range(4):
            drawn(table, 200)
            now += 0.25
    before = drawn(table, 200)
    now += 5
    after = drawn(table, 200)

    assert before[-1].endswith("▅█" * (SPARKS // 2))
    assert after[-1].endswith("▅█" * (SPARKS // 2))


def test_live_quantiles_and_rates_are_of_the_last_minutes() -> None:
    """Counts are of all; a slow hour ago is in no quantile of now."""
    clock = FakeClock()
    mc = MetricsCollector(clock=clock)
    windows = Windows(mc, clock=clock)
    for seconds, latency in ((3_600.0, 8.0), (120.0, 0.5)):
        windows.sample()
        for _ in range(10):
            mc.record_latency("m", latency)
        clock.advance(seconds)
    row = drawn(LiveTable(mc, window=lambda: windows.window("2m")), 200)

    assert "of the last 2 minutes" in row[1]
    assert ["m", "20", "0", "0", "0", "5", "500ms"] == row[-1].split()[:7]


def test_busiest_models_are_shown_when_there_are_too_many() -> None:
    """And the rest is told as a number."""
    mc = MetricsCollector()
    for i in range(100):
        for _ in range(3 if i == 70 else 1):
            mc.record_latency(f"model-{i}", 0.1)
    file = io.StringIO()
    Console(file=file, width=120, height=20).print(LiveTable(mc))
    lines = file.getvalue().splitlines()

    assert len(lines) < 20
    assert any(line.startswith("model-70 ") for line in lines)
    assert lines[-1].startswith("and ")


def test_picture(tmp_path: Path) -> None:
    """`tools/picture.py` draws the live table, and its file asks for nothing else."""
    pytest.importorskip("ollama", reason="the extra ollama is not installed")
    out = tmp_path / "live.svg"
    subprocess.run(
        [sys.executable, ROOT / "tools" / "picture.py", "--scripted", "-o", out],
        env=environment(),
        check=True,
        timeout=60,
        capture_output=True,
    )
    text = out.read_text(encoding="utf-8")

    assert "llama3.2" in text
    assert "planner" in text
    assert text.count("http") == text.count("http://www.w3.org/2000/svg")


def test_report_of_everything() -> None:
    """Models, phases, errors, tasks, resources and losses are all there."""
    lines = "\n".join(drawn(tables.report(sample_snapshot()), 160))

    for word in ("tokens/s", "load + queue", "INVALID_MODEL", "tasks", "resources"):
        assert word in lines
    assert "not counted in full" in lines


def test_tokens_of_some_calls_only() -> None:
    """An understated sum says so, with the number of calls that it is of."""
    call = CallMetrics(
        operation="chat",
        successful_reqs=6,
        prompt_tokens=30,
        prompt_tokens_known=3,
        failed_latency=LatencyHistogram.of([5.0]),
    )
    model = PerformanceMetrics(model="m", successful_reqs=6, calls={"chat": call})
    shown = "\n".join(drawn(tables.report(snapshot_of(model)), 80))

    assert "m: tokens known for 3 of 6 calls" in shown
    assert "Tokens Known For: 3 of 6 calls" in model_summary(model)
    assert "until failure" in "\n".join(drawn(tables.times(model), 80))


def test_retries_have_a_line() -> None:
    """Of calls that were tried again, the report says how many there were."""
    call = CallMetrics(operation="chat", successful_reqs=6, retries=2, retries_known=4)
    model = PerformanceMetrics(model="m", successful_reqs=6, calls={"chat": call})
    shown = "\n".join(drawn(tables.report(snapshot_of(model)), 80))

    assert "m: 2 of 4 calls were retries" in shown


def test_the_bar_of_phases_reads_without_colour() -> None:
    """Its letters are the initials of the phases, as wide as their shares."""
    call = CallMetrics(
        operation="chat",
        prefill=LatencyHistogram.of([1.0]),
        decode=LatencyHistogram.of([2.0]),
    )
    model = PerformanceMetrics(model="m", calls={"chat": call})
    shown = "\n".join(drawn(tables.phases(snapshot_of(model)), 120))

    assert "P" * 8 + "D" * 16 in shown
    assert "load" not in shown


@pytest.mark.parametrize(
    "longest", ["connect", "load", "prefill", "decode", "residual", "network"]
)
def test_the_phase_that_takes_most_is_never_left_out(longest: str) -> None:
    """Where there is no room for all phases, those go that took least."""
    phases = ("connect", "load", "prefill", "decode", "residual", "network")
    took = {
        phase: LatencyHistogram.of([9.0 if phase == longest else 0.1])
        for phase in phases
    }
    call = CallMetrics(operation="chat", successful_reqs=1, **took)
    model = PerformanceMetrics(model="m", calls={"chat": call})
    heading, _, row, *_ = drawn(tables.phases(snapshot_of(model)), 40)

    assert "94.7%" in row
    assert any(word in heading for word in (longest, "load + queue"))


def snapshot_of(model: PerformanceMetrics) -> Snapshot:
    """A snapshot of one model."""
    empty = MetricsCollector().snapshot()
    return replace(empty, models={model.model: model})
