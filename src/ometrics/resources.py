# SPDX-License-Identifier: MIT
"""The optional background sampler of this process: memory, CPU, threads and tasks."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector


class ResourceSampler:
    """
    Tells a collector every `interval` seconds what this process uses.

    A daemon thread that holds the collector weakly: it ends with it, and never keeps
    the process alive. A forked child has no such thread; `revive` starts one there.

    Args:
        collector: Whom to tell.
        interval: Seconds between samples.

    Raises:
        ImportError: psutil is not installed; the message names the extra.
        ValueError: `interval` is not above zero.
    """

    def __init__(self, collector: MetricsCollector, interval: float) -> None:
        if not interval > 0:
            raise ValueError(f"sampling interval {interval!r} s must be above zero")
        try:
            import psutil
        except ImportError:
            raise ImportError(
                "sampling resources needs psutil: "
                "pip install 'ollama-metrics[resources]'"
            ) from None
        self.interval = interval
        self._process_of = psutil.Process
        self._collector = weakref.ref(collector)
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._process = self._process_of()
        self._process.cpu_percent()  # the first call only sets its starting point
        used = self._process.cpu_times()
        age = time.time() - self._process.create_time()
        since_start = 100.0 * (used.user + used.system) / age if age > 0 else 0.0
        self._thread = threading.Thread(
            target=self._run, name="ometrics-resources", daemon=True
        )
        self.sample(since_start)
        self._thread.start()

    def revive(self) -> None:
        """Start again in a forked child; nothing elsewhere."""
        if self._pid != os.getpid() and not self._stop.is_set():
            self._start()

    def sample(self, cpu_percent: float | None = None) -> bool:
        """
        Tell the collector once; whether it still exists.

        Args:
            cpu_percent: Instead of the mean since the last sample. The first one has
                none before it and gets the mean since the process began.
        """
        collector = self._collector()
        if collector is None:
            return False
        collector.update_resource_metrics(
            self._process.memory_info().rss / 1e6,
            self._process.cpu_percent() if cpu_percent is None else cpu_percent,
            threading.active_count() + self._tasks(),
        )
        return True

    def _tasks(self) -> int:
        """Unfinished tasks of the event loop in which sampling began."""
        if self._loop is None or self._loop.is_closed():
            return 0
        return len(asyncio.all_tasks(self._loop))

    def _run(self) -> None:
        stop = self._stop
        while not stop.wait(self.interval):
            if not self.sample():
                return

    def close(self) -> None:
        """Stop sampling. Idempotent; waits for a sample that is under way."""
        if self._pid != os.getpid():
            # The parent's sampler may have held the event's lock at the fork.
            self._stop = threading.Event()
        self._stop.set()
        if self._pid == os.getpid() and self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)
