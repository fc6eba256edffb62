# SPDX-License-Identifier: MIT
"""Alerts on their way to one receiver: in order, tried until they arrive, bounded.

Whoever puts an alert in never waits. A thread takes them out; while the receiver is
away it tries again, ever more rarely.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from ometrics.rules.engine import Alert
from ometrics.rules.receivers import Receiver, RefusedError

logger = logging.getLogger("ometrics.alerts")

MOST_WAITING: Final = 10_000
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 60.0


class Outbox:
    """
    Delivers alerts to one receiver.

    Args:
        receiver: Who is told.
        first_wait: Seconds until the second attempt; then twice as long each time.

    Attributes:
        delivered: Alerts that arrived.
        failed: Attempts that did not work.
        lost: Alerts that the receiver refused, or that there was no room for.

    Thread-safety:
        Every method, from any thread.
    """

    def __init__(self, receiver: Receiver, *, first_wait: float = _FIRST_WAIT) -> None:
        self.receiver = receiver
        self.delivered = 0
        self.failed = 0
        self.lost = 0
        self._first_wait = first_wait
        self._waiting: deque[Alert] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._away = False
        self._thread: threading.Thread | None = None

    def put(self, alerts: Iterable[Alert]) -> None:
        """Queue alerts; begins the thread with the first ones."""
        with self._changed:
            self._waiting.extend(alerts)
            while len(self._waiting) > MOST_WAITING:
                self._waiting.popleft()
                self.lost += 1
            if self._waiting and self._thread is None and not self._closing:
                self._thread = threading.Thread(
                    target=self._run, name="ometrics-alerts", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def waiting(self) -> list[Alert]:
        """Alerts that have not arrived yet, in order."""
        with self._changed:
            return list(self._waiting)

    def close(self, timeout: float = 5.0) -> None:
        """Deliver what can be delivered within `timeout` seconds, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        """Send one after another; wait after a failure, and until there is more."""
        wait = self._first_wait
        resend = self.receiver.resend
        due = time.monotonic() + (resend or 0.0)
        while True:
            with self._changed:
                if self._closing and not self._waiting:
                    return
                alert = self._waiting[0] if self._waiting else None
                if alert is None:
                    left = None if resend is None else due - time.monotonic()
                    if left is None or left > 0:
                        self._changed.wait(left)
                        continue
            if self._attempt(alert):
                wait = self._first_wait
                due = time.monotonic() + (resend or 0.0)
                continue
            due = time.monotonic() + (resend or 0.0)
            with self._changed:
                if self._closing:
                    return
                # Many processes that lost one receiver come back at different times.
                self._changed.wait_for(
                    lambda: self._closing,
                    wait * random.uniform(0.5, 1.0),  # noqa: S311
                )
            wait = min(2 * wait, _LONGEST_WAIT)

    def _attempt(self, alert: Alert | None) -> bool:
        """Send one alert, or repeat what is so; whether not to try again."""
        name = self.receiver.name
        try:
            if alert is None:
                self.receiver.repeat()
            else:
                self.receiver.send(alert)
        except OSError as error:
            self.failed += 1
            if not self._away:
                logger.warning("%s cannot be told of alerts: %s", name, error)
            self._away = True
            return False
        except RefusedError as error:
            self.failed += 1
            self.lost += alert is not None
            logger.warning("%s refused an alert: %s", name, error)
        else:
            self.delivered += alert is not None
            if self._away:
                logger.warning("%s is told of alerts again", name)
            self._away = False
        with self._changed:
            # What was dropped meanwhile for want of room is no longer the first.
            if alert is not None and self._waiting and self._waiting[0] is alert:
                self._waiting.popleft()
        return True
