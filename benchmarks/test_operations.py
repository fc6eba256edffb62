# SPDX-License-Identifier: MIT
"""Every operation of the registry under pytest-benchmark: spread, history, comparison.

`pytest benchmarks --no-report --benchmark-autosave` keeps a run, and with
`--benchmark-compare` the next one is compared with it.
"""

from __future__ import annotations

import timeit
from typing import TYPE_CHECKING

import pytest
from operations import OPERATIONS, Operation

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

INNER = 1000  # executions of a fast statement in one timed call


@pytest.mark.parametrize(
    "operation", OPERATIONS, ids=[operation.name for operation in OPERATIONS]
)
def test_operation(benchmark: BenchmarkFixture, operation: Operation) -> None:
    """Time one operation; a fast one as a loop of 1,000."""
    statement = operation.statement()
    inner = 1 if operation.slow or operation.values > 100 else INNER
    timer = timeit.Timer(statement.code, globals=dict(statement.names))
    benchmark.group = "one execution" if inner == 1 else f"{inner:,} executions"
    benchmark.extra_info["values"] = inner * operation.values
    benchmark(timer.timeit, inner)
