# SPDX-License-Identifier: MIT
"""Where alerts go: a function, `logging`, the event channel, a webhook, Alertmanager.

A receiver gets alerts in order, on a thread of its own. While it is away they wait, so
it blocks nobody and loses no incident; see `ometrics.rules.outbox`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from ometrics.rules import outbound
from ometrics.rules.engine import Alert
from ometrics.rules.quantities import nearest
from ometrics.rules.words import sentence

logger = logging.getLogger("ometrics.alerts")

_LEVELS: Final = {
    "info": logging.INFO,
    "warning": logging.WARNING,
    "critical": logging.CRITICAL,
}
_OK: Final = range(200, 300)
# Answers after which another attempt may go better.
_RETRYABLE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - of the specification
_RESEND: Final = 60.0
# As Prometheus: an end is repeated, in case Alertmanager was away.
_REPEAT_END: Final = timedelta(minutes=15)


class RefusedError(Exception):
    """A receiver will never take this alert; another attempt would not help."""


@runtime_checkable
class Receiver(Protocol):
    """
    Who is told of alerts.

    Attributes:
        name: For messages and saved state; without secrets.
        resend: Seconds after which `repeat` is called; `None` for never.
    """

    name: str
    resend: float | None

    def send(self, alert: Alert, /) -> None:
        """
        Tell of one alert.

        Raises:
            OSError: It did not work now.
            RefusedError: It never will.
        """
        ...

    def repeat(self) -> None:
        """Tell again what is still so; errors as of `send`."""
        ...


class Callback:
    """
    A function of yours; what it raises is logged, and it is not called again for that.

    Args:
        function: Called with each `Alert`, on a thread of ours.
    """

    resend: float | None = None

    def __init__(self, function: Callable[[Alert], object]) -> None:
        self.name = f"callback {getattr(function, '__qualname__', '?')}"
        self._function = function

    def send(self, alert: Alert, /) -> None:
        """Call it."""
        try:
            self._function(alert)
        except Exception as error:
            raise RefusedError(type(error).__name__) from error

    def repeat(self) -> None:
        """Nothing is repeated."""


class Log:
    """Python's `logging`: the logger `ometrics.alerts`, at a level by severity."""

    name = "log"
    resend: float | None = None

    def send(self, alert: Alert, /) -> None:
        """Log a line."""
        level = _LEVELS[alert.severity] if alert.state == "firing" else logging.INFO
        logger.log(level, "%s", sentence(alert))

    def repeat(self) -> None:
        """Nothing is repeated."""


class Webhook:
    """
    A POST for each alert, as the Standard Webhooks specification has it.

    The body is `{"type": "alert.firing", "timestamp": ..., "data": {...}}` with the
    fields of `Alert`. All attempts for one alert have one `webhook-id`, so a receiver
    can drop what it has seen.

    Args:
        url: Where to.
        secret: To sign with, as `webhook-signature`; text, or `whsec_` and base64.
        allow_internal: Whether the address may be one of this machine or network.
        timeout: Seconds for one attempt.

    Raises:
        ValueError: The URL or the secret is none.
    """

    resend: float | None = None

    def __init__(
        self,
        url: str,
        *,
        secret: str | None = None,
        allow_internal: bool = False,
        timeout: float = 10.0,
    ) -> None:
        self._target = outbound.target(url, allow_internal=allow_internal)
        self._key = None if secret is None else _key(secret)
        self._timeout = timeout
        self.name = f"webhook {self._target.host}:{self._target.port}"

    def send(self, alert: Alert, /) -> None:
        """Post it, signed."""
        now = datetime.now(timezone.utc)
        body = msgspec.json.encode(
            {"type": f"alert.{alert.state}", "timestamp": alert.at, "data": alert}
        )
        identity = hashlib.sha256(f"{alert.id} {alert.state}".encode()).hexdigest()[:32]
        headers = {
            "content-type": "application/json",
            "user-agent": "ometrics",
            "webhook-id": f"msg_{identity}",
            "webhook-timestamp": str(int(now.timestamp())),
        }
        if self._key is not None:
            stamp = headers["webhook-timestamp"]
            signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
            digest = hmac.digest(self._key, signed, "sha256")
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        _post(self._target, body, headers, self._timeout)

    def repeat(self) -> None:
        """Nothing is repeated."""


class Alertmanager:
    """
    Prometheus's Alertmanager, by its API v2.

    What fires is sent again and again until it ends, as Alertmanager wants it; if this
    process dies it ends there by itself, four intervals later.

    Args:
        url: Where it is, such as `http://localhost:9093`.
        allow_internal: Whether the address may be one of this machine or network.
        resend: Seconds between repetitions.
        labels: For every alert, such as a job or a team.
        timeout: Seconds for one attempt.

    Raises:
        ValueError: The URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        allow_internal: bool = False,
        resend: float = _RESEND,
        labels: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> None:
        if resend <= 0:
            raise ValueError(f"resend {resend!r} must be above 0 s")
        base = url.rstrip("/") if isinstance(url, str) else url
        self._target = outbound.target(
            f"{base}/api/v2/alerts", allow_internal=allow_internal
        )
        self.resend: float | None = float(resend)
        self._until = timedelta(seconds=4 * resend)
        self._labels = dict(labels or {})
        self._timeout = timeout
        # The latest of a rule and model: their alerts have the same labels.
        self._known: dict[tuple[str, str], Alert] = {}
        self.name = f"alertmanager {self._target.host}:{self._target.port}"

    def send(self, alert: Alert, /) -> None:
        """Take it into what is so, and tell all of that."""
        self._known[alert.rule, alert.model] = alert
        self.repeat()

    def repeat(self) -> None:
        """Tell everything that fires or ended lately."""
        now = datetime.now(timezone.utc)
        for key, alert in list(self._known.items()):
            if alert.state == "resolved" and now - alert.at > _REPEAT_END:
                del self._known[key]
        if self._known:
            body = msgspec.json.encode(
                [self._row(a, now) for a in self._known.values()]
            )
            headers = {"content-type": "application/json", "user-agent": "ometrics"}
            _post(self._target, body, headers, self._timeout)

    def _row(self, alert: Alert, now: datetime) -> dict[str, Any]:
        """An alert as the API wants it; empty labels do not exist there."""
        labels = {
            **self._labels,
            "alertname": alert.rule,
            "severity": alert.severity,
            "gen_ai_request_model": alert.model,
        }
        return {
            "labels": {key: value for key, value in labels.items() if value},
            "annotations": {"summary": sentence(alert)},
            "startsAt": alert.began,
            "endsAt": alert.at if alert.state == "resolved" else now + self._until,
        }


def _post(
    to: outbound.PostTarget, body: bytes, headers: Mapping[str, str], timeout: float
) -> None:
    status = outbound.post(to, body, headers, timeout=timeout)
    if status in _RETRYABLE:
        raise ConnectionError(f"status {status}")
    if status not in _OK:
        raise RefusedError(f"status {status}")


def _key(secret: str) -> bytes:
    if not secret:
        raise ValueError("the secret is empty")
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret[len(_SECRET_PREFIX) :], validate=True)
    except binascii.Error:
        raise ValueError(f"the secret after {_SECRET_PREFIX!r} is not base64") from None


# --- From a file


def receiver_of(table: Mapping[str, Any]) -> Receiver:
    """
    The receiver that a `[[notify]]` table describes.

        webhook = "https://..."       secret_env, allow_internal, timeout
        alertmanager = "http://..."   resend, labels, allow_internal, timeout
        log = true

    Raises:
        ValueError: It describes none; the message says what is wrong.
    """
    kinds = [kind for kind in _OPTIONS if kind in table]
    if len(kinds) != 1:
        raise ValueError(f"name one receiver: {', '.join(_OPTIONS)}")
    (kind,) = kinds
    options = {key: value for key, value in table.items() if key != kind}
    for key in options:
        if key not in _OPTIONS[kind]:
            near = nearest(key, _OPTIONS[kind])
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"a {kind} has no {key!r}{hint}")
    for key, kinds_of_value in _TYPES.items():
        if key in options and not isinstance(options[key], kinds_of_value):
            raise ValueError(f"{key} {options[key]!r} is of the wrong type")
    if kind == "log":
        return Log()
    if kind == "alertmanager":
        return Alertmanager(table[kind], **options)
    variable = options.pop("secret_env", None)
    if variable is not None:
        options["secret"] = os.environ.get(variable, "")
        if not options["secret"]:
            raise ValueError(f"the environment has no {variable!r} with the secret")
    return Webhook(table[kind], **options)


_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "webhook": ("secret_env", "allow_internal", "timeout"),
    "alertmanager": ("resend", "labels", "allow_internal", "timeout"),
    "log": (),
}
_TYPES: Final[Mapping[str, Any]] = {
    "allow_internal": bool,
    "resend": (int, float),
    "timeout": (int, float),
    "labels": dict,
    "secret_env": str,
}
