"""What we write for Prometheus is read back by parsers that are not ours."""

from __future__ import annotations

from array import array
from decimal import Decimal
from math import inf, nan
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_proto import labels_of, native_buckets, parse
from strategies import HOSTILE_NAME, START, sample_snapshot, snapshots

from ometrics import MetricsCollector
from ometrics.export._otel_points import exponential
from ometrics.export.names import METRICS, Family, families, prometheus_label
from ometrics.export.prometheus import (
    OPENMETRICS,
    PROTOBUF,
    TEXT,
    Bridge,
    Format,
    negotiate,
    render,
)
from ometrics.histogram import (
    GENAI_TOKEN_BUCKETS,
    UINT64_MAX,
    LatencyHistogram,
    TokenHistogram,
)
from ometrics.serve import counter
from ometrics.snapshot import PerformanceMetrics, Snapshot

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

# Prometheus 2.42 with native histograms, the same without, and Prometheus 3.5.
ACCEPT_2_42_NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
    "encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,"
    "application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
ACCEPT_2_42 = (
    "application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
ACCEPT_3_5 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def expected_series(snapshot: Snapshot) -> Series:
    """Every series of a text page, without `_created`, straight from the families."""
    series: Series = {}
    for family in families(snapshot):
        name, metric = family.metric.prometheus, family.metric
        for pairs, value in family.samples:
            labels = frozenset((prometheus_label(key), text) for key, text in pairs)
            if metric.kind != "histogram":
                series[name, labels] = value
                continue
            bounds = metric.bounds or value.bucket_bounds
            counts = (*value.cumulative(bounds), value.count)
            for bound, count in zip((*bounds, inf), counts, strict=True):
                le = ("le", "+Inf" if bound == inf else repr(bound))
                series[name + "_bucket", labels | {le}] = count
            series[name + "_count", labels] = value.count
            series[name + "_sum", labels] = value.total
    return series


def read_series(families_read: Any) -> Series:
    """Every series that one of prometheus_client's parsers read, and each only once."""
    series: Series = {}
    for family in families_read:
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                key = sample.name, frozenset(sample.labels.items())
                assert key not in series
                series[key] = sample.value
    return series


def of_model(model: PerformanceMetrics) -> Snapshot:
    """A snapshot of one model."""
    return Snapshot(
        instance_id="i",
        start_time=START,
        collection_time=START,
        uptime_seconds=0.0,
        models={model.model: model},
    )


def request_duration(snapshot: Snapshot) -> Any:
    """The histogram of the first model's requests on the protobuf page."""
    page = parse(render(snapshot, PROTOBUF))
    return page["ometrics_request_duration_seconds"].metric[0].histogram


def test_text_is_read_back() -> None:
    """prometheus_client's parser reads every series of a rich page."""
    snapshot = sample_snapshot()

    page = render(snapshot, TEXT).decode()
    assert expected_series(snapshot) == read_series(parse_text(page))


def test_openmetrics_is_read_back() -> None:
    """The strict parser accepts the page and reads every series."""
    snapshot = sample_snapshot()

    page = render(snapshot, OPENMETRICS).decode()
    assert expected_series(snapshot) == read_series(parse_openmetrics(page))
    assert page.endswith("# EOF\n")


def test_openmetrics_has_types_units_and_creation_times() -> None:
    """Metadata are those of the table; counters and histograms say since when."""
    page = render(sample_snapshot(), OPENMETRICS).decode()

    read = {family.name: family for family in parse_openmetrics(page)}
    for metric in METRICS:
        family = read[metric.prometheus_family]
        assert metric.kind == family.type
        assert metric.prometheus_unit == family.unit
        assert metric.help == family.documentation
        created = {s.value for s in family.samples if s.name.endswith("_created")}
        dated = metric.kind in ("counter", "histogram")
        assert ({START.timestamp()} if dated else set()) == created


@settings(max_examples=50)
@given(snapshots())
def test_any_snapshot_is_read_back_from_text(snapshot: Snapshot) -> None:
    """Any names, codes and counts, up to 2^64 - 1."""
    page = render(snapshot, TEXT).decode()

    assert expected_series(snapshot) == read_series(parse_text(page))


@settings(max_examples=50)
@given(snapshots())
def test_any_snapshot_is_read_back_from_openmetrics(snapshot: Snapshot) -> None:
    """Any names, codes and counts, up to 2^64 - 1."""
    page = render(snapshot, OPENMETRICS).decode()

    assert expected_series(snapshot) == read_series(parse_openmetrics(page))


@settings(max_examples=50)
@given(snapshots())
def test_any_snapshot_is_read_back_from_protobuf(snapshot: Snapshot) -> None:
    """The official runtime reads both views of each histogram, and every number."""
    read = parse(render(snapshot, PROTOBUF))

    for family in families(snapshot):
        metric = family.metric
        message = read.pop(metric.prometheus)
        assert metric.help == message.help
        assert metric.prometheus_unit == message.unit
        assert {"counter": 0, "histogram": 4}.get(metric.kind, 1) == message.type
        assert len(family.samples) == len(message.metric)
        for (labels, value), got in zip(family.samples, message.metric, strict=True):
            named = {prometheus_label(key): text for key, text in labels}
            assert named == labels_of(got)
            if metric.kind == "histogram":
                check_histogram(value, metric.bounds, got.histogram)
            else:
                number = got.counter if metric.kind == "counter" else got.gauge
                assert float(value) == number.value
            if metric.kind in ("counter", "histogram"):
                dated = got.counter if metric.kind == "counter" else got.histogram
                created = dated.created_timestamp
                assert int(snapshot.start_time.timestamp()) == created.seconds
                assert snapshot.start_time.microsecond * 1000 == created.nanos
    assert {} == read


def check_histogram(
    expected: LatencyHistogram | TokenHistogram,
    bounds: tuple[float, ...] | None,
    read: Any,
) -> None:
    """Both views that were read are those of `expected`."""
    bounds = bounds or expected.bucket_bounds
    assert expected.count == read.sample_count
    assert expected.total == read.sample_sum
    assert list(bounds) == [bucket.upper_bound for bucket in read.bucket]
    assert expected.cumulative(bounds) == [b.cumulative_count for b in read.bucket]

    offset, counts, underflow, overflow = expected.exponential()
    native = {offset + 1 + i: count for i, count in enumerate(counts) if count}
    exponent = 26 if isinstance(expected, TokenHistogram) else 12
    if overflow:
        native[exponent * 32 + 1] = overflow
    assert native == native_buckets(read)
    assert (5, 2.0 ** (exponent - 32), underflow) == (
        read.schema,
        read.zero_threshold,
        read.zero_count,
    )
    assert read.sample_count == read.zero_count + sum(native.values())


def test_native_index_is_opentelemetrys_plus_one() -> None:
    """1 s closes bucket 0, so a value just above it is in bucket 1."""
    values = [1.0, 1.0000001, 2.0, 2.0**-20 * 1.001, 4096.0]
    snapshot = of_model(
        PerformanceMetrics(model="m", latency_hist=LatencyHistogram.of(values))
    )

    read = native_buckets(request_duration(snapshot))
    assert {0: 1, 1: 1, 32: 1, -639: 1, 384: 1} == read


def test_gaps_become_spans() -> None:
    """Two modes far apart take two spans, not hundreds of zeros; a gap of 2 none."""
    base = 2.0 ** (1 / 32)
    near = [1.5, 1.5 * base**3, 30.0]
    snapshot = of_model(
        PerformanceMetrics(model="m", latency_hist=LatencyHistogram.of(near))
    )

    histogram = request_duration(snapshot)
    assert [4, 1] == [span.length for span in histogram.positive_span]
    assert 5 == len(histogram.positive_delta)


def test_values_beyond_the_range_are_kept() -> None:
    """Below is the zero bucket, above the bucket right above 2^12 s."""
    values = [0.0, 5e-7, 5000.0, 1e9]
    snapshot = of_model(
        PerformanceMetrics(model="m", latency_hist=LatencyHistogram.of(values))
    )

    histogram = request_duration(snapshot)
    assert 4 == histogram.sample_count
    assert 2 == histogram.zero_count
    assert {385: 2} == native_buckets(histogram)
    assert 2 == histogram.bucket[-1].cumulative_count
    assert 'le="+Inf",gen_ai_request_model="m"} 4\n' in render(snapshot).decode()


@pytest.mark.parametrize("page_format", [TEXT, OPENMETRICS, PROTOBUF])
def test_a_large_page_gives_way_in_between(page_format: Format) -> None:
    """
    Of 1,000 models each family gives way four times, so no other thread waits for long.

    Seen to fail where bytes are written once a family.
    """
    models = {
        f"m{i}": PerformanceMetrics(
            model=f"m{i}", latency_hist=LatencyHistogram.of([0.1 + i])
        )
        for i in range(1000)
    }
    snapshot = msgspec.structs.replace(
        of_model(PerformanceMetrics(model="m")), models=models
    )
    calls: list[None] = []
    paced = render(snapshot, page_format, pace=lambda: calls.append(None))

    of_models = [f for f in families(snapshot) if f.metric.scope == "model"]
    assert 4 * len(of_models) <= len(calls)
    assert render(snapshot, page_format) == paced


def test_models_are_made_at_a_pace() -> None:
    """Between any two of them other threads may run, and they are the same models."""
    mc = MetricsCollector()
    for i in range(50):
        mc.record_latency(f"m{i}", 0.1)
    calls: list[None] = []
    paced, whole = mc.snapshot().models, mc.snapshot().models
    paced.make(lambda: calls.append(None))  # type: ignore[attr-defined]

    assert 50 == len(calls)
    assert {name: model.latency_hist for name, model in whole.items()} == {
        name: model.latency_hist for name, model in paced.items()
    }


def test_an_empty_histogram_is_native_too() -> None:
    """Without values the zero threshold alone tells that more is to come."""
    snapshot = of_model(PerformanceMetrics(model="m", failed_reqs=1))

    histogram = request_duration(snapshot)
    assert 0 == histogram.sample_count == histogram.zero_count
    assert 2.0**-20 == histogram.zero_threshold
    assert [] == list(histogram.positive_span)


def test_tokens_have_the_range_of_their_own_view() -> None:
    """2^-6 to 2^26 tokens: the zero bucket ends, and the overflow begins, elsewhere."""
    tokens = TokenHistogram.of([0, 1, 5, 2**26, 2**26 + 1, 2**40])
    metric = METRICS[0]._replace(
        name="gen_ai.client.token.usage",
        kind="histogram",
        unit="{token}",
        bounds=GENAI_TOKEN_BUCKETS,
        labels=(),
    )
    family = Family.of(metric, [((), tokens)])
    empty = of_model(PerformanceMetrics(model="m"))
    page = parse(render(empty, PROTOBUF, [family]))
    histogram = page["gen_ai_client_token_usage"].metric[0].histogram
    offset, counts, zeros = exponential(tokens)
    text = render(empty, TEXT, [family]).decode()

    assert 2.0**-6 == histogram.zero_threshold
    assert 1 == histogram.zero_count == zeros
    assert {0: 1, 75: 1, 832: 1, 833: 2} == native_buckets(histogram)
    assert (-1, 834, 2) == (offset, len(counts), counts[-1])
    assert 4 == histogram.bucket[-1].cumulative_count
    assert 'gen_ai_client_token_usage_bucket{le="16.0"} 3\n' in text
    assert 'gen_ai_client_token_usage_bucket{le="+Inf"} 6\n' in text


def test_counts_that_do_not_fit_a_native_histogram_leave_as_a_classic_one() -> None:
    """
    The format's differences are signed: beyond 2^63 - 1 there is only the classic view.

    Seen to fail without the check of the count (OverflowError costs the whole page).
    """
    one = LatencyHistogram.of([0.2])
    huge = msgspec.structs.replace(
        one, cells=array("Q", [UINT64_MAX]).tobytes(), sum_ns=UINT64_MAX
    )
    snapshot = of_model(PerformanceMetrics(model="m", latency_hist=huge))

    histogram = request_duration(snapshot)
    assert UINT64_MAX == histogram.sample_count
    assert UINT64_MAX == histogram.bucket[-1].cumulative_count
    assert 0.0 == histogram.zero_threshold
    assert [] == list(histogram.positive_delta)


@pytest.mark.parametrize(
    "name",
    [
        'a"b',
        "a\nb",
        "a\\b",
        "a\\nb",
        "\\",
        "a\0b",
        "a\rb\x85c\u2028d",
        "</script>",
        '"} 1\nevil{x="',
        "# EOF",
        "{}[],=",
        "\x1b[31m",
        "",
        " ",
        "\U0001f999",
        "x" * 2**20,
        HOSTILE_NAME,
    ],
    ids=lambda name: ascii(name[:12]),
)
def test_hostile_names_survive_in_every_format(name: str) -> None:
    """A model's name is whatever a client sent; it comes back unchanged."""
    snapshot = of_model(PerformanceMetrics(model=name, failed_reqs=1, errors={name: 1}))
    key = (
        "ometrics_requests_total",
        frozenset({("gen_ai_request_model", name), ("outcome", "failure")}),
    )
    error_labels = {"gen_ai_request_model": name, "error_type": name}

    text = read_series(parse_text(render(snapshot, TEXT).decode()))
    openmetrics = read_series(parse_openmetrics(render(snapshot, OPENMETRICS).decode()))
    protobuf = parse(render(snapshot, PROTOBUF))
    assert 1.0 == text[key]
    assert 1.0 == openmetrics[key]
    assert error_labels == labels_of(
        protobuf["ometrics_request_errors_total"].metric[0]
    )


@pytest.mark.parametrize("page_format", [TEXT, OPENMETRICS, PROTOBUF])
def test_lone_surrogates_are_replaced(page_format: Format) -> None:
    """
    They have no UTF-8, and one of them must not cost the page.

    Seen to fail (UnicodeEncodeError) with `clean` returning its argument.
    """
    lone = "a\ud800b"
    snapshot = of_model(PerformanceMetrics(model=lone, failed_reqs=1, errors={lone: 1}))

    page = render(msgspec.structs.replace(snapshot, instance_id=lone), page_format)
    assert 3 <= page.count("a\ufffdb".encode())


def test_integers_keep_every_digit_in_text() -> None:
    """2^64 - 1 is written exactly, however coarse the reader's floats are."""
    snapshot = of_model(PerformanceMetrics(model="m", tokens_processed=UINT64_MAX))

    line = 'ometrics_tokens_total{gen_ai_request_model="m"} 18446744073709551615\n'
    assert line in render(snapshot).decode()


@settings(max_examples=300)
@given(
    st.lists(
        st.floats()
        | st.floats(1e-5, 1e17)
        | st.integers(0, 2**54).map(lambda ns: ns / 1e9)
        | st.integers(0, 2**54).map(lambda us: us / 1e6)
        | st.integers(0, 2**64 + 1),
        min_size=1,
    )
)
@example([-0.0, nan, inf, 1e-5, 1e16, 5e-324])
def test_any_number_has_the_digits_that_python_writes(values: list[float]) -> None:
    """Whatever the shorter way to them, with or without an exponent."""
    told = counter("told", "{thing}", "Told.")
    family = Family.of(told, [((), value) for value in values])
    page = render(of_model(PerformanceMetrics(model="m")), TEXT, [family]).decode()
    texts = [line.split()[1] for line in page.splitlines()[-len(values) :]]

    assert all(len(text) <= 26 for text in texts)
    # Zero has no sign there: 0 is added.
    assert [str(Decimal(repr(value)).normalize() + 0) for value in values] == [
        str(Decimal(text).normalize() + 0) for text in texts
    ]


@pytest.mark.parametrize(
    ("accept", "page_format"),
    [
        (ACCEPT_2_42_NATIVE, PROTOBUF),
        (ACCEPT_2_42, OPENMETRICS),
        (ACCEPT_3_5, OPENMETRICS),
        (None, TEXT),
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        ("text/plain", TEXT),
        ("Application/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;q=0, text/plain", TEXT),
        ("text/plain;q=0.2, application/openmetrics-text;q=0.9", OPENMETRICS),
        ("text/plain, application/openmetrics-text", TEXT),
        ("application/vnd.google.protobuf", PROTOBUF),
        ("application/vnd.google.protobuf;encoding=text", TEXT),
        ("application/vnd.google.protobuf;proto=other;encoding=delimited", TEXT),
        ("application/json", TEXT),
        (";;;,=,q=1;,\0", TEXT),
        ("application/openmetrics-text;q=high", TEXT),
    ],
)
def test_negotiation(accept: str | None, page_format: Format) -> None:
    """What real scrapers, browsers and broken clients ask for, and get."""
    assert page_format == negotiate(accept)


@given(st.text())
def test_any_accept_header_gets_a_page(accept: str) -> None:
    """No header is an error."""
    assert negotiate(accept) in (TEXT, OPENMETRICS, PROTOBUF)


def test_bridge_shows_ours_on_a_page_of_prometheus_client() -> None:
    """Beside the application's own metrics, every series once and as on our page."""
    snapshot = sample_snapshot()

    class Source:
        def snapshot(self) -> Snapshot:
            return snapshot

    registry = CollectorRegistry(auto_describe=True)
    Counter("own", "The application's.", registry=registry).inc()
    registry.register(Bridge(Source()))

    series = read_series(parse_text(generate_latest(registry).decode()))
    assert 1.0 == series.pop(("own_total", frozenset()))
    assert expected_series(snapshot) == series


def test_bridge_reserves_its_names() -> None:
    """The registry refuses a second metric of the same name, without a snapshot."""
    registry = CollectorRegistry(auto_describe=True)
    with MetricsCollector() as collector:
        registry.register(Bridge(collector))

        with pytest.raises(ValueError, match="ometrics_requests"):
            Counter("ometrics_requests", "Taken.", registry=registry)


def test_a_real_collector() -> None:
    """From recording to the page."""
    with MetricsCollector() as collector:
        collector.record_latency("m", 0.15)
        collector.record_error("m", TimeoutError())
        page = render(collector.snapshot()).decode()

    line = 'ometrics_requests_total{gen_ai_request_model="m",outcome="success"} 1\n'
    assert line in page
    assert 'error_type="TimeoutError"} 1\n' in page
