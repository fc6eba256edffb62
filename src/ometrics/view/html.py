# SPDX-License-Identifier: MIT
"""How collectors, snapshots, models and histograms show themselves in a notebook.

Small tables and plots: HTML with inline SVG, no script, no style sheet, nothing that is
loaded. Everything from outside is escaped, so a model may have any name. Colours are
those of the page, so it reads in dark themes too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from ometrics.histogram import LatencyHistogram
from ometrics.models import CallMetrics, PerformanceMetrics
from ometrics.snapshot import Snapshot, percentage
from ometrics.view.calls import all_calls
from ometrics.view.escape import harmless
from ometrics.view.names import CLIENT_TIMES, PHASES, losses
from ometrics.view.plots import marks_of, range_of, rows_of
from ometrics.view.units import count, counted, duration, number, percent

MAX_MODELS: Final = 50  # rows; a notebook is no place for a thousand
BAR: Final = 240  # pixels of the longest bar
HEIGHT: Final = 12  # pixels of a bar

_COLOURS: Final = ("#b07aa1", "#4e79a7", "#59a14f", "#edc948", "#76b7b2", "#e15759")
_RIGHT: Final = ' style="text-align:right"'
_LEFT: Final = ' style="text-align:left"'


def of_snapshot(snapshot: Snapshot) -> str:
    """A table of the models, where the time went, and what was lost."""
    busiest = sorted(snapshot.models.values(), key=lambda m: -m.total_requests)
    models = _table(
        ("model", "requests", "errors", "p50", "p95", "first chunk", "tokens/s"),
        (_model_row(metrics) for metrics in busiest[:MAX_MODELS]),
    )
    facts = [
        counted(snapshot.total_requests, "request"),
        counted(snapshot.total_errors, "error"),
        duration(snapshot.uptime_seconds),
    ]
    if len(busiest) > MAX_MODELS:
        facts.append(f"the busiest {MAX_MODELS} of {len(busiest)} models")
    lost = ", ".join(f"{what}: {count(number)}" for what, number in losses(snapshot))
    parts = [_line(" · ".join(facts)), models if busiest else ""]
    if lost:
        parts.append(_line(f"not counted in full: {lost}"))
    return _block(parts)


def of_model(metrics: PerformanceMetrics) -> str:
    """A model's times, where the time went, and its latencies as a histogram."""
    calls = all_calls(metrics)
    facts = [
        _name(metrics.model),
        counted(metrics.total_requests, "request"),
        counted(metrics.failed_reqs, "error"),
    ]
    if calls.decode_tokens_per_second is not None:
        facts.append(f"{number(calls.decode_tokens_per_second)} tokens/s")
    times = {"all requests": metrics.latency_hist} | {
        title: getattr(calls, field) for title, field in CLIENT_TIMES.items()
    }
    if times["latency"] == metrics.latency_hist:
        del times["latency"]
    rows = [_time_row(title, hist) for title, hist in times.items() if hist.count]
    parts = [_line(" · ".join(facts), escaped=True)]
    if rows:
        parts.append(_table(("time", "count", "mean", "p50", "p95", "p99"), rows))
    parts += [_phases(calls), _rows(metrics.latency_hist)]
    return _block(parts)


def of_histogram(hist: LatencyHistogram) -> str:
    """A histogram: a row a range."""
    if not hist.count:
        return _block([_line("no values")])
    facts = (
        counted(hist.count, "value"),
        f"mean {duration(hist.mean)}",
        f"p50 {duration(hist.quantile(0.5))}",
        f"p99 {duration(hist.quantile(0.99))}",
    )
    return _block([_line(" · ".join(facts)), _rows(hist)])


def _model_row(metrics: PerformanceMetrics) -> Sequence[str]:
    hist = metrics.latency_hist
    calls = all_calls(metrics)
    return (
        _name(metrics.model),
        count(metrics.total_requests),
        count(metrics.failed_reqs),
        duration(hist.quantile(0.5)),
        duration(hist.quantile(0.95)),
        duration(calls.time_to_first_chunk.quantile(0.5)),
        number(calls.decode_tokens_per_second),
    )


def _time_row(title: str, hist: LatencyHistogram) -> Sequence[str]:
    quantiles = (duration(hist.quantile(q)) for q in (0.5, 0.95, 0.99))
    return (escape(title), count(hist.count), duration(hist.mean), *quantiles)


def _phases(calls: CallMetrics) -> str:
    """Where the time went, as one bar and its legend; nothing if no server told."""
    hists = [getattr(calls, phase.field) for phase in PHASES]
    whole = sum(hist.sum_ns for hist in hists)
    if not whole:
        return ""
    bars, legend, left = [], [], 0.0
    for i, (phase, hist) in enumerate(zip(PHASES, hists, strict=True)):
        width = BAR * hist.sum_ns / whole
        colour = _COLOURS[i % len(_COLOURS)]
        share = percent(percentage(hist.sum_ns, whole))
        title = f"{phase.title} {share}"
        bars.append(_rect(left, width, title, f' fill="{colour}"'))
        legend.append(f'<span style="color:{colour}">■</span> {escape(title)}')
        left += width
    return f"<div>{_svg(bars)}</div><div>{' · '.join(legend)}</div>"


def _rows(hist: LatencyHistogram) -> str:
    """The rows of a histogram as a table with bars."""
    rows = rows_of(hist)
    if not rows:
        return ""
    most = max(number for _, _, number in rows)
    cells = (
        (
            range_of(low, high),
            _svg([_rect(0, max(BAR * number / most, 1.0) if number else 0, "", "")]),
            count(number),
            percent(percentage(number, hist.count)),
            " ".join(marks),
        )
        for (low, high, number), marks in zip(rows, marks_of(hist, rows), strict=True)
    )
    return _table(("range", "", "count", "share", "quantiles"), cells)


def _svg(shapes: Iterable[str]) -> str:
    return (
        f'<svg width="{BAR}" height="{HEIGHT}" viewBox="0 0 {BAR} {HEIGHT}"'
        f' fill="currentColor" fill-opacity="0.7">{"".join(shapes)}</svg>'
    )


def _rect(left: float, width: float, title: str, attributes: str) -> str:
    tip = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{left:.1f}" y="0" width="{width:.1f}" height="{HEIGHT}"'
        f"{attributes}>{tip}</rect>"
    )


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML; the first and nameless columns to the left."""

    def line(tag: str, cells: Sequence[str]) -> str:
        aligned = (
            f"<{tag}{_RIGHT if i and title else _LEFT}>{cell}</{tag}>"
            for i, (title, cell) in enumerate(zip(titles, cells, strict=True))
        )
        return f"<tr>{''.join(aligned)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', titles)}</thead><tbody>{body}</tbody></table>"


def _name(text: str) -> str:
    """A name from outside, for HTML."""
    return f"<b>{escape(harmless(text, 60)) or '&quot;&quot;'}</b>"


def _line(text: str, *, escaped: bool = False) -> str:
    return f"<div>{text if escaped else escape(text)}</div>"


def _block(parts: Iterable[str]) -> str:
    return f'<div class="ometrics">{"".join(parts)}</div>'
