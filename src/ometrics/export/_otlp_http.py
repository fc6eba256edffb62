# SPDX-License-Identifier: MIT
"""One OTLP request over HTTP, and what came of it.

urllib3 does the HTTP: it is what `requests` and OpenTelemetry's own exporter stand on,
needs nothing else, and leaves retries to us. (Rejected: its `Retry`, whose sleeps
neither end with the process nor keep to a deadline over all attempts; `httpx`, more
packages for the one POST a minute.)

A timeout of a socket is for one read: a server that sends a byte now and then would
never run into it. So an attempt has a deadline, at which its socket is shut down.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

try:
    import urllib3
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceResponse,
    )
except ImportError:
    raise ImportError("OTLP needs more: pip install 'ollama-metrics[otlp]'") from None
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from ometrics.export._otlp_env import OtlpTarget
from ometrics.export.names import version

PROTOBUF: Final = "application/x-protobuf"
# Of the OTLP specification: all other statuses say that a repetition would not help.
RETRYABLE: Final = frozenset({429, 502, 503, 504})
# A collector answers with a few bytes; what is longer is not from one.
MAX_ANSWER_BYTES: Final = 64 * 1024
_SUCCESS: Final = range(200, 300)


class OtlpAnswer(NamedTuple):
    """
    What came of one attempt.

    Attributes:
        failure: `connection`, `timeout`, `tls`, `status_NNN`, or `content` for what no
            collector answers; `None` for a success.
        retry: Whether it may go better at another time.
        retry_after: Seconds that the server asked us to wait; `None` if it did not.
        rejected: Data points that it took the rest without.
        partial: Whether it said anything of that kind.
    """

    failure: str | None = None
    retry: bool = False
    retry_after: float | None = None
    rejected: int = 0
    partial: bool = False


class Client:
    """
    Sends to one target, over one connection that is kept.

    Args:
        target: Where and how.

    Thread-safety:
        For one thread.
    """

    def __init__(self, target: OtlpTarget) -> None:
        self._compression = target.compression
        self._socket: Any = None
        self._pool, self._request_target = self._connect_to(target)
        self._headers = {
            "user-agent": f"ometrics/{version()}",
            "content-type": PROTOBUF,
            **_basic_auth(urllib3.util.parse_url(target.url).auth),
            **target.headers,
        }
        if self._compression != "none":
            self._headers["content-encoding"] = self._compression

    def _connect_to(self, target: OtlpTarget) -> tuple[urllib3.HTTPConnectionPool, str]:
        """The one-connection pool, and what to write into the request line."""
        url = urllib3.util.parse_url(target.url)._replace(auth=None)
        options: dict[str, Any] = {"maxsize": 1}
        if url.scheme == "https":
            options["ca_certs"] = target.certificate
            options["cert_file"] = target.client_certificate
            options["key_file"] = target.client_key
        proxy = _proxy_for(url)
        manager = (
            urllib3.PoolManager(**options)
            if proxy is None
            else urllib3.ProxyManager(proxy, **options)
        )
        pool = manager.connection_from_url(url.url)
        client = self

        class OtlpConnection(pool.ConnectionCls):  # type: ignore[misc,name-defined]
            """Tells the client its socket, for the deadline."""

            def connect(self) -> None:
                super().connect()
                client._socket = self.sock

        pool.ConnectionCls = OtlpConnection
        whole = proxy is not None and url.scheme == "http"
        return pool, url.url if whole else url.request_uri

    def post(self, body: bytes, deadline: float) -> OtlpAnswer:
        """
        One attempt. Whatever goes wrong on the way is an answer, not an exception.

        Args:
            body: What `compressed` gave.
            deadline: When to give up, by `time.monotonic`.
        """
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            return OtlpAnswer("timeout")
        try:
            with self._cut_after(seconds):
                response, content = self._exchange(body, seconds)
        except (HTTPError, OSError) as error:
            return _failed(error, late=time.monotonic() >= deadline)
        if time.monotonic() >= deadline:
            # What was cut in its headers looks like an empty answer: a success.
            return OtlpAnswer("timeout", retry=True)
        return _judge(response, content)

    def _exchange(
        self, body: bytes, seconds: float
    ) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        response = self._pool.urlopen(
            "POST",
            self._request_target,
            body=body,
            headers=self._headers,
            redirect=False,
            retries=False,
            assert_same_host=False,
            timeout=urllib3.Timeout(total=seconds),
            preload_content=False,
        )
        try:
            return response, response.read(MAX_ANSWER_BYTES + 1, decode_content=True)
        finally:
            # One that was read to its end is closed already and left its connection.
            response.close()

    def compressed(self, body: bytes) -> bytes:
        """The body as it goes over the wire."""
        if self._compression == "gzip":
            return gzip.compress(body, compresslevel=3, mtime=0)
        if self._compression == "deflate":
            return zlib.compress(body, 3)
        return body

    @contextlib.contextmanager
    def _cut_after(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self.cut)
        timer.daemon = True
        # At exit no thread can start; then the wait for the last export is bounded.
        with contextlib.suppress(RuntimeError):
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def cut(self) -> None:
        """End what is under way; from any thread."""
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                # The plain call: that of a TLS socket would take its state away.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()


def _failed(error: HTTPError | OSError, *, late: bool) -> OtlpAnswer:
    # A refused connection is, to urllib3, a kind of timeout.
    refused = isinstance(error, NewConnectionError)
    if late or (isinstance(error, HTTPTimeoutError) and not refused):
        return OtlpAnswer("timeout", retry=True)
    if isinstance(error, SSLError):
        return OtlpAnswer("tls")
    return OtlpAnswer("connection", retry=True)


def _judge(response: urllib3.BaseHTTPResponse, content: bytes) -> OtlpAnswer:
    """What the server's answer means, by the OTLP specification."""
    if response.status not in _SUCCESS:
        return OtlpAnswer(
            f"status_{response.status}",
            retry=response.status in RETRYABLE,
            retry_after=_retry_after(response.headers.get("retry-after")),
        )
    if len(content) > MAX_ANSWER_BYTES:
        return OtlpAnswer("content")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        answer = _parsed(kind, content)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError):
        return OtlpAnswer("content")
    partial = answer.HasField("partial_success")
    rejected = max(answer.partial_success.rejected_data_points, 0)
    return OtlpAnswer(partial=partial, rejected=rejected)


def _parsed(kind: str, content: bytes) -> ExportMetricsServiceResponse:
    """
    The answer as a message; nothing at all is a full success.

    Raises:
        DecodeError, ParseError, UnicodeDecodeError: It is something else, such as the
            page of a proxy that wants a password: what was sent got nowhere.
    """
    answer = ExportMetricsServiceResponse()
    if not content:
        return answer
    if kind == "application/json":
        text = content.decode()
        return json_format.Parse(text, answer, ignore_unknown_fields=True)
    if kind != PROTOBUF:
        raise DecodeError(f"an answer of type {kind!r}")
    answer.ParseFromString(content)
    return answer


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from seconds or a date; `None` if it is neither."""
    if value is None:
        return None
    try:
        if value.strip().isdecimal():
            return float(value)
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _basic_auth(user: str | None) -> dict[str, str]:
    return urllib3.make_headers(basic_auth=user) if user else {}


def _proxy_for(url: urllib3.util.Url) -> str | None:
    """The environment's proxy for this address, as other clients of HTTP use it."""
    if url.host is None or urllib.request.proxy_bypass(url.netloc or url.host):
        return None
    return urllib.request.getproxies().get(url.scheme or "http")
