# SPDX-License-Identifier: MIT
"""Rules at work: a thread that looks every second, and tells who is to be told."""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ometrics._channels import publish
from ometrics.collector import MetricsCollector
from ometrics.events import AlertEvent
from ometrics.export.files import replace_file
from ometrics.rules.engine import Alert, Engine, RuleStatus
from ometrics.rules.objectives import burns
from ometrics.rules.outbox import Outbox
from ometrics.rules.receivers import Callback, Receiver
from ometrics.rules.rule import Objective, Rule
from ometrics.rules.stalls import Stalls, StallWatch
from ometrics.snapshot import Snapshot
from ometrics.windows import Windows

if TYPE_CHECKING:
    from typing_extensions import Self

    from ometrics.clock import Clock
    from ometrics.sources import Source

logger = logging.getLogger("ometrics.alerts")

# A window longer than a collector's own is a sum of many, and is taken anew only after
# this part of its length: it hardly changes sooner.
_FRESHNESS: Final = 1 / 300
# Seconds after which the ages of incidents are saved even if nothing else happened.
_SAVE_EVERY: Final = 10.0
_LONGEST_OF_COLLECTOR: Final = 900.0
# So that a stall is noticed within a second, whatever the look itself takes.
_STALL_INTERVAL: Final = 0.75


class Watch:
    """
    Evaluates rules over a source again and again; made by `MetricsCollector.watch`.

    Every alert goes to the source's event channels, if it is a collector, and to each
    receiver in its own time.

    Args:
        source: Whose numbers.
        rules: Rules and objectives.
        notify: Receivers, or functions that are called with each `Alert`.
        interval: Seconds between evaluations; at most 0.75 with `stalls`.
        stalls: What calls in flight are held against; `None` looks at none.
        findings: Whether what `diagnose` finds is told of too.
        state: File that incidents outlive a restart in; `None` for none. It has names
            of rules and models, and no secrets.
        clock: Where to read the time instead of the system, for tests.

    Raises:
        ValueError: Two rules have one name, the interval is not above zero, or `state`
            is a file of something else.
        OSError: `state` cannot be read.

    Thread-safety:
        Every method, from any thread.
    """

    def __init__(
        self,
        source: Source,
        rules: Iterable[Rule | Objective],
        *,
        notify: Iterable[Receiver | Callable[[Alert], object]] = (),
        interval: float = 1.0,
        stalls: Stalls | None = None,
        findings: bool = False,
        state: str | os.PathLike[str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not 0 < interval < float("inf"):
            raise ValueError(f"interval {interval!r} must be above 0 s")
        self._source = source
        self._clock: Clock = clock or time
        self._interval = float(interval)
        self._stalls: StallWatch | None = None
        if stalls is not None:
            self._stalls = StallWatch(source, stalls, self._clock)
            self._interval = min(self._interval, _STALL_INTERVAL)
        conditions = [] if self._stalls is None else [*self._stalls.conditions]
        if findings:
            from ometrics.diagnosis.current import Findings

            conditions += Findings(source, clock=self._clock).conditions
        self._engine = Engine(rules, conditions)
        self._window = _Taken(self._windows_of(source), self._clock)
        self._outboxes = [
            Outbox(one if isinstance(one, Receiver) else Callback(one))
            for one in notify
        ]
        self._state = None if state is None else Path(state)
        self._saved: dict[str, Any] | None = None
        self._saved_at = float("-inf")
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False
        self._pid = os.getpid()
        if self._state is not None:
            self._restore(self._state)

    def _windows_of(self, source: Source) -> Callable[[float], Snapshot]:
        """Where windows come from: a collector has those of up to 15 minutes."""
        longest = max([1.0, *map(_longest, self._engine.rules)])
        own: Callable[[float], Snapshot] | None = getattr(source, "window", None)
        if own is not None and longest <= _LONGEST_OF_COLLECTOR:
            return own
        return Windows(source, longest=longest, clock=self._clock).window

    # --- at work

    def start(self) -> Self:
        """Evaluate in a daemon thread until `close`. Idempotent."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="ometrics-rules", daemon=True
                )
                self._thread.start()
                atexit.register(self.close, 2.0)
        return self

    def _run(self) -> None:
        while True:
            try:
                self.step()
                self._failing = False
            except Exception as error:  # noqa: BLE001 - the next look may go better
                if not self._failing:
                    logger.warning("rules were not evaluated: %s", type(error).__name__)
                self._failing = True
            if self._stop.wait(self._interval):
                return

    def step(self) -> list[Alert]:
        """
        Evaluate once, now.

        Returns:
            What began to fire and what ended; the receivers are told as well.
        """
        with self._lock:
            at = datetime.fromtimestamp(self._clock.time(), timezone.utc)
            now = self._clock.monotonic()
            if self._stalls is not None:
                self._stalls.look()
            alerts = self._engine.evaluate(self._window, now=now, at=at)
            for alert in alerts:
                self._publish(alert)
            for outbox in self._outboxes:
                outbox.put(alerts)
            self._save(now, urgent=bool(alerts))
        return alerts

    def _publish(self, alert: Alert) -> None:
        if isinstance(self._source, MetricsCollector):
            event = AlertEvent(
                *("alert", alert.model, alert.rule, alert.at, None),
                state=alert.state,
                severity=alert.severity,
                call=alert.call,
            )
            publish(self._source, event, alert.model)

    # --- looking

    def statuses(self) -> list[RuleStatus]:
        """Where every rule stood with every model at the last evaluation."""
        with self._lock:
            return self._engine.statuses()

    def active(self) -> list[Alert]:
        """Incidents that fire."""
        with self._lock:
            return self._engine.active()

    @property
    def lost(self) -> int:
        """Alerts that a receiver refused, or that there was no room for."""
        return sum(outbox.lost for outbox in self._outboxes)

    # --- outliving a restart

    def _save(self, now: float, *, urgent: bool) -> None:
        """Write the state if it changed, or grew old with an incident in it."""
        if self._state is None:
            return
        waiting = {
            outbox.receiver.name: msgspec.to_builtins(outbox.waiting())
            for outbox in self._outboxes
        }
        state = {**self._engine.state(), "waiting": waiting}
        changed = urgent or _shape(state) != _shape(self._saved)
        if not changed and (
            not state["incidents"] or now - self._saved_at < _SAVE_EVERY
        ):
            return
        document = {**state, "saved_at": self._clock.time()}
        try:
            replace_file(self._state, json.dumps(document).encode())
        except OSError as error:
            logger.warning("incidents were not saved: %s", error)
        self._saved, self._saved_at = state, now

    def _restore(self, path: Path) -> None:
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except ValueError:
            raise ValueError(f"{path}: no state of rules: not JSON") from None
        try:
            saved = msgspec.convert(document, _Saved)
            gone = max(self._clock.time() - saved.saved_at, 0.0)
            self._engine.restore(document, now=self._clock.monotonic() - gone)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        for outbox in self._outboxes:
            outbox.put(saved.waiting.get(outbox.receiver.name, []))
            if outbox.receiver.resend is not None:
                # It is told again and again, so it must know what is still on.
                outbox.put(self._engine.active())

    # --- the end

    def close(self, timeout: float = 5.0) -> None:
        """
        Evaluate no more, and deliver what can be within `timeout` seconds. Idempotent.

        Incidents stay open: they are saved, if there is a file for that. A forked child
        has no part in its parent's watch, and closes nothing.
        """
        if self._pid != os.getpid():
            return
        atexit.unregister(self.close)
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        deadline = time.monotonic() + timeout
        for outbox in self._outboxes:
            outbox.close(max(deadline - time.monotonic(), 0.0))
        with self._lock:
            self._save(self._clock.monotonic(), urgent=True)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


class _Saved(msgspec.Struct):
    saved_at: float
    waiting: dict[str, list[Alert]]


class _Taken:
    """Windows; very long ones are taken anew only when they can have changed."""

    def __init__(self, window: Callable[[float], Snapshot], clock: Clock) -> None:
        self._window = window
        self._clock = clock
        self._taken: dict[float, tuple[float, Snapshot]] = {}

    def __call__(self, seconds: float) -> Snapshot:
        now = self._clock.monotonic()
        at, snapshot = self._taken.get(seconds, (float("-inf"), None))
        is_fresh = seconds > _LONGEST_OF_COLLECTOR and now - at < seconds * _FRESHNESS
        if snapshot is None or not is_fresh:
            snapshot = self._window(max(seconds, 1.0))
            self._taken[seconds] = now, snapshot
        return snapshot


def _longest(rule: Rule | Objective) -> float:
    if isinstance(rule, Rule):
        return rule.window
    return max(burn.long for burn in burns(rule))


def _shape(state: dict[str, Any] | None) -> object:
    """What of a state is worth a write at once: not the ages."""
    if state is None:
        return None
    ages = {"age", "clear_age"}
    incidents = [
        {key: value for key, value in row.items() if key not in ages}
        | {"clearing": row["clear_age"] is not None}
        for row in state["incidents"]
    ]
    return incidents, state["waiting"]
