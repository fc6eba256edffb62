"""Time under a test's control."""

from __future__ import annotations

import threading

_NS = 1_000_000_000


class FakeClock:
    """
    A clock that moves only when told to.

    It has the two methods that `MetricsCollector(clock=...)` asks of a clock. Time is
    kept in whole nanoseconds, so ten times `advance(0.1)` is exactly one second.

    Args:
        monotonic: Where the interval clock starts, in seconds.
        time: Where the wall clock starts, in seconds since 1970 (UTC).

    Thread-safety:
        Every method may be called from any thread.
    """

    def __init__(
        self, *, monotonic: float = 1_000.0, time: float = 1_700_000_000.0
    ) -> None:
        self._lock = threading.Lock()
        self._monotonic_ns = round(monotonic * _NS)
        self._time_ns = round(time * _NS)

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; never goes back."""
        with self._lock:
            return self._monotonic_ns / _NS

    def time(self) -> float:
        """Return seconds since 1970 (UTC), as the wall clock on a machine would."""
        with self._lock:
            return self._time_ns / _NS

    def advance(self, seconds: float) -> None:
        """
        Let time pass on both clocks.

        Args:
            seconds: How long, in seconds; not negative.

        Raises:
            ValueError: `seconds` is negative, infinite or not a number.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"time passes forwards: got {seconds} s")
        step = round(seconds * _NS)
        with self._lock:
            self._monotonic_ns += step
            self._time_ns += step

    def step_wall(self, seconds: float) -> None:
        """
        Set the wall clock forwards or back, as NTP or a person does.

        Args:
            seconds: The correction in seconds; negative sets it back.
        """
        step = round(seconds * _NS)
        with self._lock:
            self._time_ns += step
