# SPDX-License-Identifier: MIT
"""A collector that does what a test wants, and readers of what it was sent."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from ometrics import MetricsCollector
from ometrics.export.otlp import PeriodicExporter

PROTOBUF = "application/x-protobuf"
# Metric name -> attributes -> data point
Points = dict[str, dict[frozenset[tuple[str, str]], Any]]


@dataclass(frozen=True)
class Reply:
    """What to do with a request, and whether its data counts as taken."""

    act: Callable[[BaseHTTPRequestHandler], None]
    takes: bool = False


_DECODE = {"gzip": gzip.decompress, "deflate": zlib.decompress}


def answer(
    status: int = 200,
    body: bytes = b"",
    content_type: str = PROTOBUF,
    **headers: str,
) -> Reply:
    """An answer; whether the data was taken is what its status says."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return Reply(reply, takes=status == 200)


def partial(rejected: int) -> Reply:
    """A success but for so many points."""
    message = ExportMetricsServiceResponse()
    message.partial_success.rejected_data_points = rejected
    message.partial_success.error_message = "too old"
    return answer(body=message.SerializeToString())


def hang(release: threading.Event) -> Reply:
    """Say nothing until released, then hang up."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        release.wait(60)
        handler.close_connection = True

    return Reply(reply)


def drip(release: threading.Event) -> Reply:
    """A header without end, a byte at a time: no single read ever takes long."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while not release.wait(0.02):
            handler.wfile.write(b"x")

    return Reply(reply)


def raw(data: bytes) -> Reply:
    """These bytes, then hang up."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return Reply(reply)


class ScriptedCollector(ThreadingHTTPServer):
    """
    Answers each request with the next reply of `script`, then with `otherwise`.

    Attributes:
        taken: Requests that were answered with success, decoded.
        headers: Headers of every request, in lower case.
        times: When each came, by the monotonic clock.
        connections: How many were made.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.script: list[Reply] = []
        self.otherwise: Reply = answer()
        self.taken: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.connections = 0
        self._news = threading.Condition()
        self._tls = tls
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.server_port}"

    def wait(self, attempts: int, seconds: float = 20.0) -> None:
        """Until so many requests have come."""
        with self._news:
            came = self._news.wait_for(lambda: len(self.times) >= attempts, seconds)

        assert came, f"{len(self.times)} of {attempts} requests came"

    def handle_post(self, handler: BaseHTTPRequestHandler) -> None:
        """Read, note, and do what the script says."""
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        encoding = handler.headers.get("Content-Encoding")
        request = ExportMetricsServiceRequest.FromString(
            _DECODE[encoding](body) if encoding else body
        )
        with self._news:
            reply = self.script.pop(0) if self.script else self.otherwise
            self.headers.append({k.lower(): v for k, v in handler.headers.items()})
            self.paths.append(handler.path)
            self.times.append(time.monotonic())
            if reply.takes:
                self.taken.append(request)
            self._news.notify_all()
        try:
            reply.act(handler)
        except OSError:
            handler.close_connection = True

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, where a handshake holds up nobody."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        with self._tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def points(self) -> Points:
        """The latest point of each series over all that was taken."""
        return points_of(self.taken)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ScriptedCollector

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        self.server.handle_post(self)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def collector(
    port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[ScriptedCollector]:
    """A running `ScriptedCollector`."""
    with ScriptedCollector(port, tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def attributes(pairs: Iterable[KeyValue]) -> frozenset[tuple[str, str]]:
    """Attributes of a point or resource, all of them text; none comes twice."""
    found = [(pair.key, pair.value.string_value) for pair in pairs]

    assert len(found) == len({key for key, _ in found})

    return frozenset(found)


def resource_of(request: ExportMetricsServiceRequest) -> dict[str, str]:
    """Attributes of the one resource."""
    (whole,) = request.resource_metrics
    return dict(attributes(whole.resource.attributes))


def points_of(requests: Iterable[ExportMetricsServiceRequest]) -> Points:
    """The latest point of each series, by metric and attributes."""
    found: Points = {}
    for request in requests:
        for metric in metrics_of(request):
            data = getattr(metric, metric.WhichOneof("data"))
            series = found.setdefault(metric.name, {})
            for point in data.data_points:
                series[attributes(point.attributes)] = point
    return found


def metrics_of(request: ExportMetricsServiceRequest) -> Iterator[Any]:
    """Every metric of a request."""
    for whole in request.resource_metrics:
        for scope in whole.scope_metrics:
            yield from scope.metrics


def key(*pairs: tuple[str, str]) -> frozenset[tuple[str, str]]:
    """Attributes to look a point up by."""
    return frozenset(pairs)


SUCCESS = key(("gen_ai.request.model", "m"), ("outcome", "success"))
NEVER = 3_600.0  # an interval that no test waits for


def exporter_to(
    server: ScriptedCollector, mc: MetricsCollector, **options: Any
) -> PeriodicExporter:
    """One that exports when told to, not by itself."""
    return PeriodicExporter(mc, endpoint=server.url, **{"interval": NEVER, **options})


def successes(server: ScriptedCollector) -> int:
    """What the collector knows of model `m`; 0 if it heard of it never."""
    points = server.points().get("ometrics.requests", {})
    point = points.get(SUCCESS)
    return 0 if point is None else point.as_int


def record(mc: MetricsCollector, times: int) -> None:
    """So many successes of model `m`."""
    for _ in range(times):
        mc.record_latency("m", 0.25)
