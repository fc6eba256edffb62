# SPDX-License-Identifier: MIT
"""`TrackedCall` and `Exchange`: one call, from its request to the last of its answer.

Whatever they do, who makes the call never notices: they raise nothing, and what fails
in here is counted and logged once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from ometrics._calls import Call
from ometrics._table import count_internal_error
from ometrics.errors import classify
from ometrics.instrumentation.answers import FIRST_ERROR, AnswerReader
from ometrics.instrumentation.endpoints import ApiEndpoint
from ometrics.instrumentation.usage import (
    NOT_INFERENCE,
    UNKNOWN,
    Usage,
    canonical,
)
from ometrics.outcomes import Outcome, OutcomeName

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector

logger = logging.getLogger("ometrics")

# How many places of failure are logged before it is enough.
_MAX_REPORTED: Final = 100
_reported: set[str] = set()

_REDIRECTS: Final = range(300, 400)


def report(collectors: Iterable[MetricsCollector], error: Exception) -> None:
    """Count a failure of ours, and log its class and place the first time."""
    try:
        for collector in collectors:
            count_internal_error(collector)
        name = f"{type(error).__name__} in {_place(error)}"
        if name not in _reported and len(_reported) < _MAX_REPORTED:
            _reported.add(name)
            logger.warning("instrumentation failed, the call did not: %s", name)
    except Exception:  # noqa: BLE001, S110 - there is nowhere left to report it
        pass


def _place(error: Exception) -> str:
    """The function that raised, never the message: that may hold anything."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_name if trace is not None else "?"


class TrackedCall:
    """
    One call of one model, counted by each of several collectors.

    Only the first end counts. No method raises.

    Args:
        collectors: Who counts it.
        model: Name of the model as requested.
        endpoint: What kind of call it is.
        provider: Who serves the model, in the GenAI conventions' words.

    Attributes:
        connect_ns: How long the client waited for a connection; `None` if not known.
        is_retry: Whether it tries an earlier one again; `None` if not known.
        is_open: Whether it has begun and not ended.

    Thread-safety:
        One thread at a time.
    """

    __slots__ = (
        "_calls",
        "_collectors",
        "_endpoint",
        "_model",
        "_provider",
        "connect_ns",
        "is_open",
        "is_retry",
    )

    def __init__(
        self,
        collectors: Sequence[MetricsCollector],
        model: str,
        endpoint: ApiEndpoint,
        provider: str = "ollama",
    ) -> None:
        self._collectors = collectors
        self._model = canonical(model)
        self._endpoint = endpoint
        self._provider = provider
        self.connect_ns: int | None = None
        self.is_retry: bool | None = None
        self.is_open = False
        self._calls: list[tuple[MetricsCollector, Call]] = []

    def start(self) -> None:
        """The request goes out now."""
        operation = self._endpoint.operation
        for collector in self._collectors:
            try:
                call = collector.start_call(self._model, operation, self._provider)
                if self.is_retry is not None:
                    call.retry(self.is_retry)
                self._calls.append((collector, call))
                self.is_open = True
            except Exception as error:  # noqa: BLE001 - the caller's call comes first
                report((collector,), error)

    def observer(self) -> Callable[[bool], object]:
        """What to call for each chunk; it may raise if there is one collector."""
        if len(self._calls) == 1:
            return self._calls[0][1].chunk
        return self.chunk

    def chunk(self, answer: bool) -> None:
        """Output has arrived: of the answer, or thinking."""
        for collector, call in self._calls:
            try:
                call.chunk(answer)
            except Exception as error:  # noqa: BLE001
                report((collector,), error)

    def succeeded(self, usage: Usage = UNKNOWN) -> None:
        """The answer is complete; that a model was loaded or unloaded is no call."""
        if usage.done_reason in NOT_INFERENCE or not self._endpoint.counts_success:
            self.discard()
        else:
            self._end(Outcome.SUCCESS, None, usage)

    def failed(self, code: str, usage: Usage = UNKNOWN) -> None:
        """The call failed, under this code."""
        self._end(Outcome.FAILURE, code, usage)

    def cancelled(self, usage: Usage = UNKNOWN) -> None:
        """The caller went away."""
        if self._endpoint.counts_success:
            self._end(Outcome.CANCELLED, None, usage)
        else:
            self.discard()

    def raised(self, error: BaseException, usage: Usage = UNKNOWN) -> None:
        """
        The call ended by an exception.

        What is no `Exception` is the caller's going away: `GeneratorExit` (a break,
        close or garbage collection), `CancelledError`, `KeyboardInterrupt`.
        """
        if not isinstance(error, Exception):
            self.cancelled(usage)
            return
        try:
            code = classify(error)
        except Exception as failure:  # noqa: BLE001
            report(self._collectors, failure)
            code = type(error).__name__
        self.failed(code, usage)

    def discard(self) -> None:
        """This was no call of a model after all."""
        for collector, call in self._ended():
            try:
                call.discard()
            except Exception as error:  # noqa: BLE001
                report((collector,), error)

    def _end(self, outcome: OutcomeName, code: str | None, usage: Usage) -> None:
        for collector, call in self._ended():
            try:
                call.end(outcome, code, *usage, connect=self.connect_ns)
            except Exception as error:  # noqa: BLE001
                report((collector,), error)

    def _ended(self) -> list[tuple[MetricsCollector, Call]]:
        """What is still open, and from now on is not."""
        calls, self._calls = self._calls, []
        self.is_open = False
        return calls


class Exchange:
    """
    One HTTP request to a model and its answer, measured in passing.

    In the order of events: `begin`, perhaps `connected`, then `answered`, `data` for
    each piece of the body, and one of `finished`, `broke`, `closed`. No method raises,
    and after the end each does nothing.

    Args:
        collectors: Who counts it.
        model: Name of the model as requested.
        endpoint: What kind of call it is.
        provider: Who serves the model, in the GenAI conventions' words.
        is_retry: Whether it tries an earlier one again; `None` if not known.

    Thread-safety:
        One thread at a time.
    """

    __slots__ = (
        "_begun_ns",
        "_call",
        "_collectors",
        "_endpoint",
        "_reader",
    )

    def __init__(
        self,
        collectors: Sequence[MetricsCollector],
        model: str,
        endpoint: ApiEndpoint,
        provider: str = "ollama",
        is_retry: bool | None = None,
    ) -> None:
        self._call = TrackedCall(collectors, model, endpoint, provider)
        self._call.is_retry = is_retry
        self._collectors = collectors
        self._endpoint = endpoint
        self._reader: AnswerReader | None = None
        self._begun_ns = 0

    def begin(self) -> None:
        """The request is made now."""
        self._call.start()
        # Second: a forked process makes room for its records with its first call, and
        # the wait for a connection is a part of the call's time.
        self._begun_ns = time.monotonic_ns()

    def connected(self) -> None:
        """
        The client has a connection, and sends the request on it.

        Until here it waited for its own pool of connections, a name's address, the
        connection and TLS. Called again (a redirect), the first time counts.
        """
        if self._call.connect_ns is None:
            self._call.connect_ns = time.monotonic_ns() - self._begun_ns

    def answered(
        self, status: int, content_type: str = "", content_encoding: str = ""
    ) -> None:
        """The status and headers of the answer are here."""
        is_success = status < FIRST_ERROR and not self._endpoint.counts_success
        if is_success or status in _REDIRECTS:  # after which comes another request
            self._call.discard()
            return
        try:
            self._reader = AnswerReader(
                self._endpoint.dialect,
                self._call.observer(),
                status=status,
                content_type=content_type,
                content_encoding=content_encoding,
            )
        except Exception as error:  # noqa: BLE001
            self._failed(error)

    def data(self, data: bytes) -> None:
        """A piece of the body has arrived, cut anywhere, still packed."""
        reader = self._reader
        if reader is None:
            return
        try:
            reader.feed(data)
            if reader.is_over:
                self._end(reader)
        except Exception as error:  # noqa: BLE001 - the caller's call comes first
            self._failed(error)

    def finished(self) -> None:
        """The body has come to its end."""
        if not self._call.is_open:
            return
        reader = self._reader
        try:
            if reader is None:  # ours failed, or it is over already
                self._call.succeeded()
            else:
                reader.finish()
                self._end(reader)
        except Exception as error:  # noqa: BLE001 - the caller's call comes first
            self._failed(error)
            self._call.succeeded()

    def broke(self, error: BaseException) -> None:
        """Sending, waiting or reading raised."""
        reader, self._reader = self._reader, None
        self._call.raised(error, UNKNOWN if reader is None else reader.usage)

    def closed(self, error: BaseException | None = None) -> None:
        """
        The answer is let go before its end; perhaps it has all that was wanted.

        Args:
            error: What made its reader let it go, if that is known to be the answer's
                fault.
        """
        if not self._call.is_open:
            return
        reader, self._reader = self._reader, None
        if reader is None:
            self._call.cancelled()
        elif reader.status >= FIRST_ERROR:
            self._reader = reader
            self.finished()
        elif error is not None:
            self._call.raised(error, reader.usage)
        elif reader.has_all_output:
            self._call.succeeded(reader.usage)
        else:
            self._call.cancelled(reader.usage)

    def _end(self, reader: AnswerReader) -> None:
        self._reader = None
        if reader.error is None:
            self._call.succeeded(reader.usage)
        else:
            self._call.failed(reader.error, reader.usage)

    def _failed(self, error: Exception) -> None:
        """Something in here failed: the rest of the answer is not looked at."""
        self._reader = None
        report(self._collectors, error)
