"""A real Prometheus scrapes our pages; what it then knows is what the snapshots said.

Needs `prometheus` and `promtool` on the path (Debian's package `prometheus`); one test
also needs `prometheus-node-exporter`, which comes with them.
"""

from __future__ import annotations

import bisect
import json
import random
import re
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from real_prometheus import PROMETHEUS, Server, prometheus, wait_for
from strategies import HOSTILE_NAME, sample_snapshot

from ometrics import MetricsCollector
from ometrics.diagnosis import Findings
from ometrics.export import textfile
from ometrics.export.prometheus import OPENMETRICS, PROTOBUF, TEXT, negotiate, render
from ometrics.models import PHASES
from ometrics.snapshot import Snapshot

PROMTOOL = shutil.which("promtool")
NODE_EXPORTER = shutil.which("prometheus-node-exporter")
ASSETS = resources.files("ometrics.export") / "assets"
DATA = Path(__file__).parents[1] / "data"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        PROMETHEUS is None or PROMTOOL is None,
        reason="no prometheus and promtool on the path",
    ),
]

JOBS = {"text": TEXT, "openmetrics": OPENMETRICS, "protobuf": PROTOBUF}
# `negotiated` gets what Prometheus asks for by itself.
CONFIG = """\
global:
  scrape_interval: 250ms
  scrape_timeout: 250ms
scrape_configs:
{jobs}
"""
JOB = """\
  - job_name: {job}-{source}
    metrics_path: /{source}/{job}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
MODEL = "qwen2.5:0.5b"


class Workload:
    """A real collector under load from two threads; every latency is remembered."""

    def __init__(self) -> None:
        self.collector = MetricsCollector()
        self.latencies: list[float] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._record, args=(seed,)) for seed in range(2)
        ]

    def start(self) -> None:
        """Begin to record."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Record no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _record(self, seed: int) -> None:
        rng = random.Random(seed)
        while not self._stop.wait(0.001):
            for _ in range(5):
                latency = rng.lognormvariate(-1.0, 0.8)
                self.latencies.append(latency)
                self.collector.record_latency(MODEL, latency)
            self.collector.record_error(MODEL, TimeoutError)
            self.collector.record_error(HOSTILE_NAME, ValueError)
            self.collector.record_tokens(MODEL, rng.randrange(1000))


class Growing:
    """The rich sample, more of it at each scrape: every counter grows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = sample_snapshot()

    def snapshot(self) -> Snapshot:
        """All of it, once more."""
        with self._lock:
            self._now = self._now.merge(sample_snapshot())
            return self._now


@pytest.fixture(scope="module")
def sources() -> Iterator[tuple[int, dict[str, Any]]]:
    """A page of each source in each format over HTTP, on this port."""
    pages: dict[str, Any] = {"growing": Growing()}
    findings = Findings(pages["growing"])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, source, job = self.path.split("/")
            accept = self.headers.get("Accept")
            page_format = JOBS.get(job) or negotiate(accept)
            own = [*findings()] if source == "growing" else []
            page = render(pages[source].snapshot(), page_format, own)
            self.send_response(200)
            self.send_header("Content-Type", page_format.content_type)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        workload = Workload()
        workload.start()
        pages["live"] = workload.collector
        pages["workload"] = workload
        yield server.server_port, pages
        workload.stop()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(
    sources: tuple[int, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A running Prometheus that has scraped all sources for some seconds."""
    jobs = [
        JOB.format(job=job, source=source, port=sources[0])
        for job in [*JOBS, "negotiated"]
        for source in ("live", "growing")
    ]
    config = CONFIG.format(jobs="".join(jobs))
    with prometheus(config, tmp_path_factory.mktemp("prometheus")) as server:
        # Enough for rates, and for a look at single scrapes.
        scraped = "count_over_time(ometrics_uptime_seconds[1m]) >= 20"
        wait_for(
            lambda: len(server.query(scraped)) == len(jobs), "20 scrapes of each job"
        )
        yield server


@pytest.fixture(scope="module")
def settled(server: Server, sources: tuple[int, dict[str, Any]]) -> Snapshot:
    """The last snapshot of the live source, after Prometheus has scraped it."""
    workload: Workload = sources[1]["workload"]
    workload.stop()
    snapshot = workload.collector.snapshot()
    requests = snapshot.models[MODEL].total_requests
    wait_for(
        lambda: (
            [float(requests)] * 4
            == [
                value
                for _, value in server.query(
                    "sum by (job) (ometrics_requests_total"
                    f'{{job=~".*-live", gen_ai_request_model="{MODEL}"}})'
                )
            ]
        ),
        "the last scrape",
    )
    return snapshot


def test_every_target_is_up(server: Server) -> None:
    """Prometheus accepts all formats, and by itself asks for protobuf."""
    targets = server.get("/api/v1/targets", state="active")["activeTargets"]

    assert 8 == len(targets)
    assert {("up", "")} == {(t["health"], t["lastError"]) for t in targets}
    assert server.query('ometrics_request_duration_seconds{job="negotiated-live"}')


def test_every_scrape_is_one_instant(server: Server) -> None:
    """At each time that Prometheus scraped under load, counts and buckets agree."""
    model = f'{{job="text-live", gen_ai_request_model="{MODEL}"'
    values = {
        name: dict(server.query(f"ometrics_{selector}[1m]")[0][1])
        for name, selector in {
            "success": f'requests_total{model}, outcome="success"}}',
            "failure": f'requests_total{model}, outcome="failure"}}',
            "errors": f"request_errors_total{model}}}",
            "count": f"request_duration_seconds_count{model}}}",
            "infinity": f'request_duration_seconds_bucket{model}, le="+Inf"}}',
        }.items()
    }

    assert len(values["success"]) >= 10
    assert len(set(values["success"].values())) >= 10
    for at, success in values["success"].items():
        assert success == values["count"][at] == values["infinity"][at]
        assert values["failure"][at] == values["errors"][at]


@pytest.mark.parametrize("job", [*JOBS, "negotiated"])
def test_numbers_are_those_of_the_snapshot(
    server: Server, settled: Snapshot, job: str
) -> None:
    """Counts, sums and labels, hostile ones too, of the last scrape."""
    ours = settled.models[MODEL]
    series = server.query(f'{{__name__=~"ometrics_.*", job="{job}-live"}}')
    told = {
        (labels["__name__"], labels.get("gen_ai_request_model", ""), own): value
        for labels, value in series
        if (own := labels.get("outcome") or labels.get("error_type") or "") is not None
        and "le" not in labels
    }

    assert ours.successful_reqs == told["ometrics_requests_total", MODEL, "success"]
    assert ours.failed_reqs == told["ometrics_requests_total", MODEL, "failure"]
    assert ours.tokens_processed == told["ometrics_tokens_total", MODEL, ""]
    errors = "ometrics_request_errors_total"
    assert ours.errors["TimeoutError"] == told[errors, MODEL, "TimeoutError"]
    hostile = settled.models[HOSTILE_NAME]
    assert hostile.failed_reqs == told[errors, HOSTILE_NAME, "ValueError"]
    start = told["ometrics_start_timestamp_seconds", "", ""]
    assert settled.start_time.timestamp() == pytest.approx(start, abs=1e-5)


@pytest.mark.parametrize("job", ["text", "openmetrics"])
def test_classic_buckets_are_those_of_the_snapshot(
    server: Server, settled: Snapshot, job: str
) -> None:
    """Each `le`, the count and the sum."""
    hist = settled.models[MODEL].latency_hist
    selector = f'{{job="{job}-live", gen_ai_request_model="{MODEL}"}}'
    buckets = server.query(f"ometrics_request_duration_seconds_bucket{selector}")
    told = {float(labels["le"]): value for labels, value in buckets}

    bounds = hist.bucket_bounds
    counts = (*hist.cumulative(bounds), hist.count)
    assert dict(zip((*bounds, float("inf")), counts, strict=True)) == told
    total = server.value(f"ometrics_request_duration_seconds_sum{selector}")
    assert hist.total == total


@pytest.mark.parametrize("job", ["protobuf", "negotiated"])
@pytest.mark.parametrize("q", [0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999])
def test_native_quantiles(
    server: Server,
    sources: tuple[int, dict[str, Any]],
    settled: Snapshot,
    job: str,
    q: float,
) -> None:
    """
    Prometheus' quantile of the native histogram is near the exact sample quantile.

    Both are in one bucket, (a, 1.0219 a]. Ours is its harmonic middle, within 1.1 % of
    anything in it; Prometheus interpolates, which may take the rest of the bucket.
    """
    hist = settled.models[MODEL].latency_hist
    latencies = sorted(sources[1]["workload"].latencies)
    exact = latencies[max(round(q * len(latencies) + 0.5) - 1, 0)]
    native = (
        f'ometrics_request_duration_seconds{{job="{job}-live",'
        f' gen_ai_request_model="{MODEL}"}}'
    )
    quantile = server.value(f"histogram_quantile({q}, {native})")
    ours = hist.quantile(q)
    assert ours is not None

    # The rank may fall on the other side of a bound, so the neighbouring value counts.
    rank = bisect.bisect_left(latencies, exact)
    near = latencies[max(rank - 1, 0) : rank + 2]
    assert any(abs(ours / value - 1) <= 0.0110 for value in near)
    assert any(abs(quantile / value - 1) <= 0.0110 + 0.0109 for value in near)
    assert len(latencies) == hist.count == server.value(f"histogram_count({native})")
    assert hist.total == server.value(f"histogram_sum({native})")


def test_native_fraction(
    server: Server, sources: tuple[int, dict[str, Any]], settled: Snapshot
) -> None:
    """Bucket bounds are where we think: at a power of two, a fraction is exact."""
    latencies = sources[1]["workload"].latencies
    fraction = server.value(
        "histogram_fraction(0, 0.5, ometrics_request_duration_seconds"
        f'{{job="protobuf-live", gen_ai_request_model="{MODEL}"}})'
    )

    assert settled.models[MODEL].latency_hist.count == len(latencies)
    exact = sum(value <= 0.5 for value in latencies) / len(latencies)
    assert exact == pytest.approx(fraction, abs=1e-9)


def test_values_beyond_the_range_count(server: Server) -> None:
    """The sample's 0 s and 5,000 s are in the zero bucket and right above 2^12 s."""
    llama = '{job="protobuf-growing", gen_ai_request_model="llama3.2"}'
    native = f"ometrics_request_duration_seconds{llama}"

    fraction = server.value(f"histogram_fraction(0, 0.00001, {native})")
    assert 2 / 7 == pytest.approx(fraction)
    assert 4096 <= server.value(f"histogram_quantile(0.99, {native})") <= 4096 * 1.022
    count = server.value(f"histogram_count({native})")
    assert 0 == count % 7


def dashboard() -> Any:
    """The dashboard as Grafana imports it."""
    return json.loads((ASSETS / "ometrics-dashboard.json").read_text("utf-8"))


def filled_in(template: str, job: str) -> str:
    """A query with all variables at All, but for the job, over the last seconds."""
    expression = template.replace("$__rate_interval", "10s").replace("[1h]", "[10s]")
    expression = expression.replace("$job", job)
    return re.sub(r"\$(instance|model|operation|provider)\b", ".*", expression)


def dashboard_queries() -> list[tuple[str, str]]:
    """Panel's title and expression of each query of the dashboard."""
    return [
        (panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ]


@pytest.mark.parametrize("job", ["text-growing", "protobuf-growing"])
def test_every_query_of_the_dashboard_returns_data(server: Server, job: str) -> None:
    """With classic and with native histograms, each returns numbers."""
    empty = []
    for title, template in dashboard_queries():
        expression = filled_in(template, job)
        assert "$" not in expression
        if all(repr(value) == "nan" for _, value in server.query(expression)):
            empty.append((title, expression))

    assert [] == empty
    assert len(dashboard_queries()) >= 50


def test_every_query_of_the_dashboard_follows_its_variables() -> None:
    """Each selects jobs and instances; those of calls, operations and providers too."""
    for title, template in dashboard_queries():
        for name, selector in re.findall(r"([a-z_]+)\{([^}]*)\}", template):
            wanted = ["$job", "$instance"]
            if name.startswith(("ometrics_call_", "ometrics_calls_", "gen_ai_")):
                wanted += ["$model", "$operation", "$provider"]
            assert [] == [key for key in wanted if key not in selector], title


@pytest.mark.parametrize("job", ["text-growing", "protobuf-growing"])
def test_phases_of_the_dashboard_add_up_to_the_mean(server: Server, job: str) -> None:
    """What is stacked is as high as the line of the mean, what is unknown included."""
    (panel,) = (p for p in dashboard()["panels"] if "by phase" in p["title"][5:])
    phases, unknown, mean = (
        filled_in(target["expr"], job) for target in panel["targets"]
    )
    # One query, so that all is of one instant.
    stack = f"sum(({phases}) or ({unknown}))"

    assert len(PHASES) == len(server.query(phases))
    assert server.value(unknown) > 0
    assert 1.0 == pytest.approx(server.value(f"{stack} / ({mean})"))


@pytest.mark.parametrize("job", ["text-growing", "protobuf-growing"])
def test_ratios_of_the_dashboard_are_those_of_the_sample(
    server: Server, job: str
) -> None:
    """Failures, cache hits, truncated answers and cold loads of a model with all."""
    templates = dict(dashboard_queries())
    told = {
        title: {
            labels["gen_ai_request_model"]: value
            for labels, value in server.query(filled_in(template, job))
        }
        for title, template in templates.items()
        if title.endswith(" ratio by model") or title == "Cold loads"
    }
    qwen = {title: values["qwen2.5:0.5b"] for title, values in told.items()}
    chats = filled_in(
        'increase(ometrics_calls_total{job="$job", outcome="success",'
        ' gen_ai_operation_name="chat"}[1h])',
        job,
    )
    cold = f"({filled_in(templates['Cold loads'], job)}) / on () sum({chats})"

    assert 4 == len(qwen)
    assert 2 / 8 == pytest.approx(qwen["Failure ratio by model"])
    assert 128 / 412 == pytest.approx(qwen["Cache-hit ratio by model"])
    assert 1 / 4 == pytest.approx(qwen["Truncation ratio by model"])
    assert 0.0 == told["Failure ratio by model"]["__overflow__"]
    # One load of 0.95 s in the four successful chats of each scrape.
    assert 1 / 4 == pytest.approx(server.value(cold), rel=0.1)


def test_variables_of_the_dashboard_have_values(server: Server) -> None:
    """`label_values(metric, label)` of each variable finds something."""
    names = []
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] != "query":
            continue
        names.append(variable["name"])
        metric, label = variable["definition"][len("label_values(") : -1].rsplit(
            ", ", 1
        )
        series = server.query(filled_in(metric, "text-growing"))
        assert any(labels.get(label) for labels, _ in series), variable["name"]

    assert ["job", "instance", "provider", "model", "operation"] == names


def test_recording_rules_return_data(server: Server) -> None:
    """Every expression of a recording rule, over classic and over native histograms."""
    assert PROMTOOL is not None
    rules = (ASSETS / "ometrics-rules.yml").read_text("utf-8")
    expressions = recording_expressions(rules)
    assert 10 == len(expressions)
    for job in ("text-growing", "protobuf-growing"):
        for name, expression in expressions.items():
            if "job_model_outcome:" in expression:
                continue  # over another rule: promtool tests it
            found = {labels["job"] for labels, _ in server.query(expression)}
            assert job in found, name


def recording_expressions(rules: str) -> dict[str, str]:
    """Name -> expression of the recording rules, from the YAML as we write it."""
    expressions: dict[str, str] = {}
    recording = rules.partition("- name: ometrics.alerts")[0]
    for rule in recording.split("- record: ")[1:]:
        name, _, rest = rule.partition("\n")
        lines = rest.partition("expr: |\n")[2].split("\n")
        body = [line for line in lines if line.startswith(" " * 10)]
        expressions[name] = re.sub(r"\[(5m|1h)\]", "[10s]", " ".join(body))
    return expressions


def promtool(*arguments: str, stdin: bytes | None = None) -> tuple[int, str]:
    """Exit code and everything that it said."""
    assert PROMTOOL is not None
    result = subprocess.run(
        [PROMTOOL, *arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return result.returncode, result.stdout.decode()


def test_promtool_has_nothing_to_say_about_our_metrics() -> None:
    """Names, units, types and help texts follow Prometheus' conventions."""
    page = render(sample_snapshot(), TEXT)

    assert (0, "") == promtool("check", "metrics", stdin=page)


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    """`check rules` and our `test rules`, which fires each kind of alert."""
    rules = tmp_path / "ometrics-rules.yml"
    rules.write_bytes((ASSETS / "ometrics-rules.yml").read_bytes())
    tests = tmp_path / "ometrics-rules-test.yml"
    tests.write_bytes((DATA / "ometrics-rules-test.yml").read_bytes())

    checked = promtool("check", "rules", str(rules))
    assert (0, True) == (checked[0], "SUCCESS: 19 rules found" in checked[1]), checked
    tested = promtool("test", "rules", str(tests))
    assert (0, True) == (tested[0], "SUCCESS" in tested[1]), tested


@pytest.mark.skipif(NODE_EXPORTER is None, reason="no prometheus-node-exporter")
def test_node_exporter_serves_the_textfile(tmp_path: Path) -> None:
    """Every series of the file is on node_exporter's page, and no error."""
    assert NODE_EXPORTER is not None
    textfile.write(sample_snapshot(), tmp_path / "ometrics.prom")
    port = free_port()
    command = [
        NODE_EXPORTER,
        "--collector.disable-defaults",
        "--collector.textfile",
        f"--collector.textfile.directory={tmp_path}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]

    def page() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text: str = answer.read().decode()
            return text

    with subprocess.Popen(command) as process:
        try:
            served = series_of(wait_for(page, "node_exporter"))
        finally:
            process.terminate()
    ours = series_of((tmp_path / "ometrics.prom").read_text("utf-8"))
    assert 0.0 == served["node_textfile_scrape_error", frozenset()]
    assert ours == {key: served.get(key) for key in ours}


def series_of(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """
    Name and labels -> value.

    `le` as a number, since Go writes 1.0 as 1. An empty label is none: node_exporter
    gives each series all labels of its family.
    """
    series = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = dict(sample.labels)
            if "le" in labels:
                labels["le"] = str(float(labels["le"]))
            present = [(key, text) for key, text in labels.items() if text]
            series[sample.name, frozenset(present)] = float(sample.value)
    return series
