"""Writes `docs/metrics.md` from the table in `ometrics.export.names`.

python tools/metrics_page.py            writes the page
python tools/metrics_page.py --check    exit code 1 if the page is not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from ometrics.cli import serve as sidecar
from ometrics.export.names import METRICS, SCOPE_LABELS, MetricRow, Scope
from ometrics.histogram import DEFAULT_BUCKETS, GENAI_DURATION_BUCKETS
from ometrics.proxy import numbers as proxy_numbers
from ometrics.serve import numbers

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

SCOPES: dict[Scope, str] = {
    "model": "Of each model",
    "call": "Of each model and operation, for instrumented calls",
    "server": "Of each model that an Ollama server told of, where one is asked",
    "gpu": "Of each GPU of the machine, where somebody looks",
    "snapshot": "Of the collector",
}


def page() -> str:
    """The whole page."""
    tables = [_scope(scope, title) for scope, title in SCOPES.items()]
    about = "On the Prometheus pages of an endpoint, beside what it serves."
    tables.append(_table("Of the endpoint", about, numbers.METRICS))
    about = "On the same pages where `ometrics proxy` serves them."
    tables.append(_table("Of the proxy", about, proxy_numbers.METRICS))
    about = "On the pages of `ometrics serve`, of the directory that it serves."
    tables.append(_table("Of the sidecar", about, sidecar.METRICS))
    scopes = "\n".join(tables)
    return f"""\
# Metrics

Every number of a snapshot, under its name in each format. This page is written by
`python tools/metrics_page.py` from the one table in the code,
`src/ometrics/export/names.py`.

- **Names** are those of the OpenTelemetry GenAI conventions (status: Development)
  where these have one, else `ometrics.*`. OTLP carries them as they are; Prometheus
  gets their standard translation: underscores, the base unit, `_total`. OpenMetrics
  leaves out `_total` and `_info` in its `# TYPE` lines, and adds `_created`.
- **Labels** are OpenTelemetry attributes; in Prometheus their dots are underscores.
- **What nobody told has no series.** A missing token count is not 0 (but a counter that
  is known and 0 is there from the start).
- **One page is one instant.** For each model, `ometrics_requests_total` of outcome
  `success` is the count of `ometrics_request_duration_seconds` plus
  `ometrics_request_latency_unknown_total`; outcome `failure` is the sum over
  `ometrics_request_errors_total`.
{scopes}
## Histograms

One set of exact counts, in every view that a format has:

| format | what a histogram is |
|---|---|
| Prometheus text, OpenMetrics | explicit buckets |
| Prometheus protobuf | the same, and a native histogram of schema 5 |
| OTLP | an exponential histogram of scale 5 |

- Explicit bounds of the GenAI metrics and of the phases are those of the conventions,
  in seconds: {_bounds(GENAI_DURATION_BUCKETS)}.
- Those of `ometrics_request_duration_seconds` are the collector's `buckets`; without a
  choice: {_bounds(DEFAULT_BUCKETS)}.
  The label `10s+` of `LatencyHistogram.buckets` counts all above 5 s; here `le="10.0"`
  is exact as well.
- The exponential view covers 2^-20 s to 2^12 s with an error of at most 1.1 %. Smaller
  values are in the zero bucket (threshold 2^-20 s). Larger ones are in the bucket right
  above 2^12 s, so that the buckets add up to the count, as Prometheus requires:
  a quantile up there reads "at least 4,096 s".
- `gen_ai.client.operation.duration` holds successful calls; failed ones are counted by
  `ometrics.call.errors` with their `error.type`, without a duration.

## What is not exported

| number | why |
|---|---|
| `gen_ai.server.request.duration`, `.time_to_first_token`, `.time_per_output_token` | \
they want one value of each call; a server tells phases, which leave as \
`ometrics.call.phase.duration` |
| `gen_ai.client.token.usage` | a histogram of tokens a call; the snapshot has sums, \
which leave as the newer counters |
| `min`, `max` of the call's histograms | in OTLP they are part of the histogram; in \
Prometheus a quantile over a window says more than an extreme since the start |
| averages, rates, percentages | PromQL divides: \
`rate(ometrics_call_decode_tokens_total[5m]) / \
rate(ometrics_call_decode_time_seconds_total[5m])` |
"""


def _scope(scope: Scope, title: str) -> str:
    keys = [f"`{key}`" for key in SCOPE_LABELS[scope]]
    labels = f" Labels of each: {', '.join(keys)}." if keys else ""
    about = f"OpenTelemetry's name stands under Prometheus'.{labels}"
    return _table(title, about, [row for row in METRICS if row.scope == scope])


def _table(title: str, about: str, metrics: Iterable[MetricRow]) -> str:
    rows = "\n".join(_row(metric) for metric in metrics)
    return f"""
## {title}

{about}

| metric | type | unit | own labels | what | field of the snapshot |
|---|---|---|---|---|---|
{rows}
"""


def _row(metric: MetricRow) -> str:
    own = ", ".join(f"`{key}`" for key in metric.labels)
    return (
        f"| `{metric.prometheus}` <br> `{metric.name}` | {metric.kind}"
        f" | {metric.unit} | {own} | {metric.help} | {_source(metric)} |"
    )


def _source(metric: MetricRow) -> str:
    return f"`{metric.source}`" if metric.source else ""


def _bounds(bounds: tuple[float, ...]) -> str:
    return ", ".join(f"{bound:g}" for bound in bounds)


def main() -> int:
    """Write the page, or say whether it is current."""
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE.name} is not current: run python tools/metrics_page.py")
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
