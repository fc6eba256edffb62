"""Our exporter -> a real collector (rotel) -> a real store (VictoriaMetrics) -> back.

What the store then knows is what the snapshot said. rotel comes from PyPI, and
VictoriaMetrics from `VICTORIA_METRICS`, the path, or `tools/get_victoriametrics.sh`,
where that can run.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ports import free_port
from real_prometheus import wait_for
from strategies import sample_snapshot

from ometrics import MetricsCollector
from ometrics.export.names import families, prometheus_label
from ometrics.snapshot import Snapshot

pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
pytest.importorskip("urllib3", reason="the extra otlp is not installed")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="not installed")

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from ometrics.export.otel_bridge import HistogramExporter, bridge
from ometrics.export.otlp import PeriodicExporter

pytestmark = pytest.mark.real

GETTER = Path(__file__).parents[2] / "tools" / "get_victoriametrics.sh"
NEVER = 3_600.0


class Fixed:
    """A source of one snapshot, made to be of now: the store refuses other times."""

    def __init__(self, snapshot: Snapshot) -> None:
        shift = time.time() - snapshot.collection_time.timestamp()
        self._moved = _moved(snapshot, shift)

    def snapshot(self) -> Snapshot:
        """Always the same."""
        return self._moved


def _moved(snapshot: Snapshot, seconds: float) -> Snapshot:
    by = timedelta(seconds=seconds)
    return msgspec.structs.replace(
        snapshot,
        start_time=snapshot.start_time + by,
        collection_time=snapshot.collection_time + by,
    )


class Store:
    """A running VictoriaMetrics."""

    def __init__(self, url: str) -> None:
        self.url = url

    def series(self) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
        """The last value of every series, by name and by its own labels."""
        self._get("/internal/force_flush")
        text = self._get("/api/v1/export", match='{__name__!=""}')
        found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for line in text.splitlines():
            row = json.loads(line)
            labels = row["metric"]
            name = labels.pop("__name__")
            found.setdefault(name, {})[frozenset(labels.items())] = row["values"][-1]
        return found

    def query(self, expression: str) -> float:
        """The one value of an instant query."""
        answer = json.loads(
            self._get(
                "/api/v1/query", query=expression, latency_offset="1ms", nocache="1"
            )
        )
        (only,) = answer["data"]["result"]
        return float(only["value"][1])

    def _get(self, path: str, **parameters: str) -> str:
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


@contextmanager
def daemon(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs meanwhile; OpenTelemetry's variables are not its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def victoria_metrics() -> str:
    """The program's path."""
    here = os.environ.get("VICTORIA_METRICS") or shutil.which("victoria-metrics")
    if here:
        return here
    if not shutil.which("apt-get"):
        pytest.skip("no victoria-metrics on the path, and no apt to get it with")
    got = subprocess.run(
        [GETTER], capture_output=True, text=True, timeout=300, check=False
    )
    if got.returncode:
        pytest.skip(f"no victoria-metrics: {got.stderr.strip()[-200:]}")
    return got.stdout.strip()


@pytest.fixture
def store(victoria_metrics: str, tmp_path: Path) -> Iterator[Store]:
    """A fresh store, with OpenTelemetry's names translated to Prometheus'."""
    port = free_port()
    with daemon(
        victoria_metrics,
        f"-storageDataPath={tmp_path / 'data'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-opentelemetry.usePrometheusNaming",
        log=tmp_path / "victoria-metrics.log",
    ):
        running = Store(f"http://127.0.0.1:{port}")
        wait_for(lambda: running._get("/health"), "VictoriaMetrics")
        yield running


@pytest.fixture
def start_rotel(
    store: Store, tmp_path: Path
) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Starts the collector on a port, in front of the store."""
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        pytest.skip("no rotel: pip install rotel")
    agent = str(Path(found.origin).with_name("rotel-agent"))
    with ExitStack() as stack:

        def start(port: int) -> subprocess.Popen[bytes]:
            process = stack.enter_context(
                daemon(
                    agent,
                    "start",
                    f"--otlp-http-endpoint=127.0.0.1:{port}",
                    f"--otlp-grpc-endpoint=127.0.0.1:{free_port()}",
                    "--disable-batching",
                    "--exporter=otlp",
                    "--otlp-exporter-protocol=http",
                    f"--otlp-exporter-endpoint={store.url}/opentelemetry",
                    log=tmp_path / f"rotel-{time.monotonic_ns()}.log",
                )
            )
            wait_for(lambda: listens(port), "rotel")
            return process

        yield start


def labels_of(snapshot: Snapshot, labels: Any) -> dict[str, str]:
    """What the store makes of a point's attributes; an empty label is none to it."""
    return {prometheus_label(key): value for key, value in labels if value}


def own(labels: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    """Labels without those of the resource and the scope."""
    theirs = ("service_", "telemetry_", "otel_scope_", "scope_", "job", "instance")
    return frozenset(pair for pair in labels if not pair[0].startswith(theirs))


def check(store: Store, snapshot: Snapshot) -> None:
    """Every number of the snapshot is in the store, under its name and labels."""
    series = store.series()
    for family in families(snapshot):
        row = family.metric
        if row.kind == "info":
            continue  # its labels are the resource's, which `own` leaves out
        for labels, value in family.samples:
            expected = frozenset(labels_of(snapshot, labels).items())

            def the(
                suffix: str,
                name: str = row.prometheus,
                expected: frozenset[tuple[str, str]] = expected,
            ) -> float:
                (found,) = [
                    v for k, v in series[name + suffix].items() if own(k) == expected
                ]
                return found

            if row.kind != "histogram":
                assert math.isclose(value, the(""), rel_tol=1e-12), row.name
                continue
            if not value.count:
                continue  # a store keeps nothing of nothing
            assert value.count == the("_count"), row.name
            assert math.isclose(value.total, the("_sum"), rel_tol=1e-12), row.name
            buckets = [
                v
                for k, v in series[row.prometheus + "_bucket"].items()
                if frozenset(p for p in own(k) if p[0] != "vmrange") == expected
            ]

            assert value.count == sum(buckets), row.name
            nonzero = [count for count in value.counts if count]

            assert len(nonzero) + bool(value.underflow) + bool(value.overflow) == len(
                buckets
            ), row.name


def test_sample(store: Store, start_rotel: Any) -> None:
    """The rich sample arrives whole, hostile names and all."""
    port = free_port()
    start_rotel(port)
    source = Fixed(sample_snapshot())
    with PeriodicExporter(
        source,
        endpoint=f"http://127.0.0.1:{port}",
        interval=NEVER,
        compression="gzip",
        resource={"service.name": "agent"},
    ) as exporter:
        assert exporter.flush(), exporter.health()
        wait_for(lambda: "ometrics_internal_errors_total" in store.series(), "data")
    check(store, source.snapshot())


def test_quantiles(store: Store, start_rotel: Any) -> None:
    """The store's quantile over our buckets is within 2.2 % of the exact one."""
    port = free_port()
    start_rotel(port)
    rng = random.Random(3)
    values = sorted(rng.lognormvariate(-1.0, 1.0) for _ in range(20_000))
    mc = MetricsCollector()
    for value in values:
        mc.record_latency("m", value)
    with PeriodicExporter(
        mc, endpoint=f"http://127.0.0.1:{port}", interval=NEVER
    ) as exporter:
        assert exporter.flush()
        wait_for(lambda: store.series().get("ometrics_requests_total"), "data")
        for q in (0.5, 0.9, 0.99, 0.999):
            exact = values[math.ceil(q * len(values)) - 1]
            found = store.query(
                f"histogram_quantile({q},"
                ' sum({__name__="ometrics_request_duration_seconds_bucket"})'
                " by (vmrange))"
            )

            # One bucket is 2.2 % wide; the store interpolates within it.
            assert abs(found - exact) <= 0.022 * exact


def test_collector_goes_and_comes_back(store: Store, start_rotel: Any) -> None:
    """While the collector is down nothing is lost: the next export has it all."""
    port = free_port()
    mc = MetricsCollector()
    mc.record_latency("m", 0.1)
    first = start_rotel(port)
    with PeriodicExporter(
        mc, endpoint=f"http://127.0.0.1:{port}", interval=NEVER, timeout=0.5
    ) as exporter:
        assert exporter.flush()
        first.kill()
        first.wait()
        for _ in range(1000):
            mc.record_latency("m", 0.2)

        assert not exporter.flush()
        assert {"connection"} == exporter.health().failures.keys()
        start_rotel(port)
        mc.record_error("m", TimeoutError())

        assert exporter.flush()
    now = mc.snapshot()

    def arrived() -> bool:
        rows = store.series().get("ometrics_requests_total", {})
        return 1001 in rows.values()

    wait_for(arrived, "1,001 requests")
    found = {
        dict(k)["outcome"]: v
        for k, v in store.series()["ometrics_requests_total"].items()
    }

    assert {"success": 1001, "failure": 1, "cancelled": 0} == found
    assert 1001 == now.models["m"].successful_reqs


def test_bridge(store: Store, start_rotel: Any) -> None:
    """Through OpenTelemetry's own SDK and exporter, with `HistogramExporter`."""
    port = free_port()
    start_rotel(port)
    source = Fixed(sample_snapshot())
    sender = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{port}/v1/metrics")
    reader = PeriodicExportingMetricReader(
        HistogramExporter(sender, source), export_interval_millis=NEVER * 1e3
    )
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    bridge(source, provider, histogram_sums=False)
    try:
        assert provider.force_flush()
        wait_for(lambda: "ometrics_internal_errors_total" in store.series(), "data")
        check(store, source.snapshot())
    finally:
        provider.shutdown()
