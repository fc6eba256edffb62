# SPDX-License-Identifier: MIT
"""OpenTelemetry's SDK: one histogram record with one attribute."""

from __future__ import annotations

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from rounds import Statement

PACKAGES = ("opentelemetry-sdk",)


def fast() -> dict[str, Statement]:
    """Recording; a reader must be there, or the SDK would drop the value."""
    provider = MeterProvider([InMemoryMetricReader()])
    histogram = provider.get_meter("benchmarks").create_histogram("latency", "s")
    names = {"histogram": histogram, "attributes": {"model": "m"}}
    return {
        "record, one attribute": Statement("histogram.record(0.15, attributes)", names)
    }


def slow() -> dict[str, Statement]:
    """Nothing."""
    return {}
