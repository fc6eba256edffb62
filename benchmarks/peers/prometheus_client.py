# SPDX-License-Identifier: MIT
"""prometheus_client: one observation, and a page of the same series as ours."""

from __future__ import annotations

from operations import MANY, filled
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from rounds import Statement

from ometrics.export.prometheus import Bridge

PACKAGES = ("prometheus-client",)


class Premade:
    """
    A collector that has its answer ready.

    Generous: of the peer only the writing is timed, not its reading of each series.
    """

    def __init__(self, metrics: list[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> list[Metric]:
        """What the peer's own registry would have gathered."""
        return self.metrics


def fast() -> dict[str, Statement]:
    """Recording, with our default buckets."""
    bounds = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
    histogram = Histogram(
        "latency_seconds",
        "Latency.",
        ["model"],
        buckets=bounds,
        registry=CollectorRegistry(),
    )
    counter = Counter("tokens", "Tokens.", ["model"], registry=CollectorRegistry())
    names = {
        "histogram": histogram,
        "child": histogram.labels("m"),
        "counter": counter.labels("m"),
    }
    return {
        "labels().observe": Statement('histogram.labels("m").observe(0.15)', names),
        "held child observe": Statement("child.observe(0.15)", names),
        "counter inc": Statement("counter.inc(500)", names),
    }


def _native(metrics: list[Metric]) -> CollectorRegistry:
    """The peer's own counters, gauges and histograms, with the same series as ours."""
    disable_created_metrics()  # the text format has no such series
    registry = CollectorRegistry()
    for metric in metrics:
        totals = [s for s in metric.samples if not s.name.endswith("_bucket")]
        labels = sorted({name for sample in totals for name in sample.labels})
        bounds = sorted(
            {float(s.labels["le"]) for s in metric.samples if "le" in s.labels}
        )
        if metric.type == "histogram":
            own = Histogram(
                metric.name, "Help.", labels, buckets=bounds, registry=registry
            )
        elif metric.type == "counter":
            own = Counter(metric.name, "Help.", labels, registry=registry)
        else:
            own = Gauge(metric.name, "Help.", labels, registry=registry)
        for sample in totals:
            child = own.labels(**sample.labels) if labels else own
            if metric.type == "histogram":
                child.observe(0.15)
            else:
                child.inc(abs(sample.value))
    return registry


def slow() -> dict[str, Statement]:
    """A page of 1,000 models: as the peer makes it, and only the writing of it."""
    metrics = list(Bridge(filled(MANY)).collect())
    ready = CollectorRegistry()
    ready.register(Premade(metrics))
    names = {
        "generate_latest": generate_latest,
        "ready": ready,
        "native": _native(metrics),
    }
    return {
        "same series": Statement("generate_latest(native)", names),
        "same series, only written": Statement("generate_latest(ready)", names),
    }
