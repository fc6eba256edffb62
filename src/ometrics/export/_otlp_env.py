# SPDX-License-Identifier: MIT
"""Where to send OTLP and as whom: arguments first, then OpenTelemetry's variables.

The environment means what it means to OpenTelemetry's own SDK for Python, so one set of
variables serves both in a process: a `..._METRICS_...` variable wins over the general
one, and timeouts are in seconds (the specification has milliseconds; the SDK does not).
What cannot be read there is logged and left out: an operator's slip must not keep an
agent from starting. A wrong argument is a bug and raises.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from ometrics.export.names import version

DEFAULT_TIMEOUT: Final = 10.0
DEFAULT_INTERVAL: Final = 60.0

_DEFAULT_ENDPOINT: Final = "http://localhost:4318"
_PATH: Final = "/v1/metrics"
_COMPRESSIONS: Final = ("none", "gzip", "deflate")
_LOG: Final = logging.getLogger(__name__)


class OtlpTarget(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where and how to send.

    Attributes:
        url: The whole address, path included.
        headers: Names in lower case; may hold credentials, so nothing prints them.
        timeout: Seconds for one export, its retries included.
        compression: `none`, `gzip` or `deflate`.
        certificate: File of the authorities to trust instead of the system's.
        client_certificate: File of our own certificate, for mutual TLS.
        client_key: File of its key.
    """

    url: str
    headers: dict[str, str]
    timeout: float
    compression: str
    certificate: str | None
    client_certificate: str | None
    client_key: str | None

    def __repr__(self) -> str:
        """Without headers, user or query: they may be secrets."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"<Target {parts.scheme}://{host}{parts.path}>"


def target(
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    compression: str | None = None,
) -> OtlpTarget:
    """
    What the arguments and the environment say.

    Args:
        endpoint: A URL; without a path it gets `/v1/metrics`.
        headers: Added to those of the environment.
        timeout: Seconds, above zero.
        compression: `none`, `gzip` or `deflate`.

    Raises:
        ValueError: An argument is not as described.
    """
    if timeout is not None and not 0 < timeout < float("inf"):
        raise ValueError(f"timeout {timeout!r} s must be finite and above zero")
    if compression is not None and compression not in _COMPRESSIONS:
        raise ValueError(f"compression {compression!r} is none of {_COMPRESSIONS}")
    for name, value in (headers or {}).items():
        if not _is_header(name, value):
            raise ValueError(f"header {name!r} has a name or value that HTTP forbids")
    return OtlpTarget(
        url=_endpoint() if endpoint is None else _url(endpoint),
        headers=_headers() | {k.lower(): v for k, v in (headers or {}).items()},
        timeout=timeout or _seconds("TIMEOUT", DEFAULT_TIMEOUT),
        compression=compression or _compression(),
        certificate=_variable("CERTIFICATE"),
        client_certificate=_variable("CLIENT_CERTIFICATE"),
        client_key=_variable("CLIENT_KEY"),
    )


def interval(seconds: float | None) -> float:
    """
    Seconds between exports: the argument, `OTEL_METRIC_EXPORT_INTERVAL` (ms), or 60.

    Raises:
        ValueError: The argument is not finite or not above zero.
    """
    if seconds is None:
        ms = _number("OTEL_METRIC_EXPORT_INTERVAL", DEFAULT_INTERVAL * 1e3)
        return ms / 1e3
    if not 0 < seconds < float("inf"):
        raise ValueError(f"interval {seconds!r} s must be finite and above zero")
    return seconds


def resource(attributes: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    Who we are: `attributes` over the environment's over what can be told without both.

    `telemetry.sdk.*` says that this library made the numbers, not OpenTelemetry's SDK.
    """
    return {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "ometrics",
        "telemetry.sdk.version": version(),
        "service.name": _unknown_service(),
        **_pairs(
            "OTEL_RESOURCE_ATTRIBUTES", os.environ.get("OTEL_RESOURCE_ATTRIBUTES")
        ),
        **_service_name(),
        **(attributes or {}),
    }


def _unknown_service() -> str:
    program = Path(sys.executable).name if sys.executable else ""
    return f"unknown_service:{program}" if program else "unknown_service"


def _service_name() -> dict[str, str]:
    name = os.environ.get("OTEL_SERVICE_NAME")
    return {"service.name": name} if name else {}


def _variable(name: str) -> str | None:
    for prefix in ("OTEL_EXPORTER_OTLP_METRICS_", "OTEL_EXPORTER_OTLP_"):
        if value := os.environ.get(prefix + name, "").strip():
            return value
    return None


def _endpoint() -> str:
    exact = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "").strip()
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    # The first is taken as it is, the second is a base for all kinds of telemetry.
    url = exact or (base or _DEFAULT_ENDPOINT).removesuffix("/") + _PATH
    try:
        return _url(url)
    except ValueError as error:
        _LOG.warning("OTEL_EXPORTER_OTLP_..._ENDPOINT is not used: %s", error)
        return _DEFAULT_ENDPOINT + _PATH


def _url(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    host = parts.netloc.rpartition("@")[2]
    shown = f"{parts.scheme}://{host}"
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"endpoint {shown!r} must begin with http:// or https://")
    if not parts.hostname:
        raise ValueError(f"endpoint {shown!r} names no host")
    _ = parts.port  # raises for one that is no number up to 65535
    if parts.path in ("", "/"):
        parts = parts._replace(path=_PATH)
    return parts._replace(fragment="").geturl()


def _headers() -> dict[str, str]:
    pairs = _pairs("OTEL_EXPORTER_OTLP_HEADERS", _variable("HEADERS"))
    return {
        name.lower(): value for name, value in pairs.items() if _is_header(name, value)
    }


def _is_header(name: str, value: str) -> bool:
    return bool(_TOKEN.fullmatch(name)) and not _CONTROL.search(value)


_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")


def _pairs(variable: str, text: str | None) -> dict[str, str]:
    """`a=1,b=2` with percent-encoded values; the message shows no value: secrets."""
    pairs = {}
    for item in (text or "").split(","):
        key, equals, value = item.partition("=")
        if equals and key.strip():
            pairs[unquote(key.strip())] = unquote(value.strip())
        elif item.strip():
            _LOG.warning("%s: an item is not of the form key=value", variable)
    return pairs


def _compression() -> str:
    value = (_variable("COMPRESSION") or "none").lower()
    if value in _COMPRESSIONS:
        return value
    _LOG.warning("OTEL_EXPORTER_OTLP_COMPRESSION is none of %s", _COMPRESSIONS)
    return "none"


def _seconds(name: str, default: float) -> float:
    for prefix in ("OTEL_EXPORTER_OTLP_METRICS_", "OTEL_EXPORTER_OTLP_"):
        if os.environ.get(prefix + name):
            return _number(prefix + name, default)
    return default


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if 0 < value < float("inf"):
        return value
    _LOG.warning("%s is not a number above zero; %g is used", variable, default)
    return default
