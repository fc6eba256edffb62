# SPDX-License-Identifier: MIT
"""What the command draws: units, bars, sparklines, histograms, tables that fit."""

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
from rich.cells import cell_len
from rich.console import Console
from strategies import sample_snapshot, snapshots

from ometrics import LatencyHistogram, MetricsCollector, Snapshot
from ometrics.cli.show import details
from ometrics.view import tables
from ometrics.view.live import SPARKS, LiveTable
from ometrics.view.plots import MAX_ROWS, HistogramPlot, bar, rows_of, sparkline
from ometrics.view.units import count, duration, number, percent

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        (0.0, "0s"),
        (2e-9, "2ns"),
        (1.5e-6, "1.5µs"),
        (0.0123456, "12.3ms"),
        (0.9996, "1s"),
        (3.14159, "3.14s"),
        (59.4, "59.4s"),
        (59.9, "1m00s"),
        (61, "1m01s"),
        (3599.9, "1h00m"),
        (90_061, "25h01m"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    """Three digits and the unit that suits; unknown is a dash."""
    assert text == duration(seconds)


def test_numbers() -> None:
    """Small ones keep three digits, large ones every digit; unknown is a dash."""
    assert ["–", "0", "0.123", "41.3", "1,234"] == [
        number(value) for value in (None, 0.0, 0.12345, 41.26, 1234.4)
    ]
    assert ["–", "0%", "0.0%", "12.3%", "100%"] == [
        percent(value) for value in (None, 0.0, 0.01, 12.34, 100.0)
    ]
    assert ["–", "1,000,000"] == [count(None), count(1_000_000)]


def test_bars_show_what_is_not_zero() -> None:
    """A whole bar is its width, a tiny part is an eighth, nothing is nothing."""
    assert ["████", "██", "▏", "", ""] == [
        bar(part, whole, 4)
        for part, whole in ((8, 8), (4, 8), (1, 10**9), (0, 8), (0, 0))
    ]


def test_sparkline() -> None:
    """A character a value, relative to the highest."""
    assert "▁▅█▁" == sparkline([0.0, 0.5, 1.0, 0.01])
    assert "▁▁" == sparkline([0.0, 0.0])
    assert "" == sparkline([])


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_histogram_rows_hold_every_value(values: list[float]) -> None:
    """Rows ascend, do not overlap, are not too many, and their counts add up."""
    rows = rows_of(LatencyHistogram.of(values))

    assert len(values) == sum(n for _, _, n in rows)
    assert len(rows) <= 2 * MAX_ROWS + 2
    edges = [edge for low, high, _ in rows for edge in (low, high)]
    assert sorted(edges) == edges


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
