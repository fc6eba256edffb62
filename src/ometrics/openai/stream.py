# SPDX-License-Identifier: MIT
"""How an answer that is still open is seen on its way to the caller.

A stream is the client's own `Stream`; its inner iterator is replaced by one that looks
at each chunk. The HTTP answer under it says when it is closed, which every way out of a
stream comes to: its end, `close()`, a `with`, garbage collection. `with_raw_response`
and `with_streaming_response` hand out the body: tokens are known if it was read whole.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from ometrics.observing import Sheltered

if TYPE_CHECKING:
    from types import TracebackType

    from ometrics.openai.watch import OpenAIWatch


def observe(result: Any, watches: tuple[OpenAIWatch, ...], is_async: bool) -> None:
    """
    See how an answer that has begun goes on.

    Args:
        result: What the client returns to its caller.
        watches: The call's watches.
        is_async: Whether the client is.
    """
    with Sheltered(watches):
        if hasattr(result, "_iterator"):  # Stream, AsyncStream
            _Open(result.response, watches, is_async).as_chunks(result)
        elif not hasattr(result, "http_response"):  # the object asked for
            for watch in watches:
                watch.answered(result)
        elif result.http_response.is_closed:  # with_raw_response
            for watch in watches:
                watch.answered_in(result.http_response)
        else:  # with_streaming_response, or raw with stream=True
            _Open(result.http_response, watches, is_async).read_by(result, is_async)


class _Open:
    """
    An HTTP answer that is still open; to close it ends the call.

    Args:
        http: The HTTP client's response object.
        watches: The call's watches.
        is_async: Whether the client is.
    """

    __slots__ = ("busy", "http", "streams", "watches")

    def __init__(
        self, http: Any, watches: tuple[OpenAIWatch, ...], is_async: bool
    ) -> None:
        self.http = http
        self.watches = watches
        self.streams = False  # as chunks, through the client's `Stream`
        self.busy = False  # inside a step that will say itself how it went
        name = "aclose" if is_async else "close"
        close = getattr(http, name)

        def closing() -> Any:
            with Sheltered(watches):
                vars(http).pop(name, None)
                self._closes()
            return close()

        setattr(http, name, closing)

    def _closes(self) -> None:
        if self.busy:
            return
        for watch in self.watches:
            # Who takes lines or bytes himself does not tell whether he took all.
            if not self.streams and self.http.is_stream_consumed:
                watch.succeeded()
            else:
                watch.closed()

    def read_by(self, result: Any, is_async: bool) -> None:
        """Look at what the caller reads through an `APIResponse`."""
        http = self.http
        if is_async:
            http.aread = self._areading(http.aread)
        else:
            http.read = self._reading(http.read)
        if inspect.iscoroutinefunction(result.parse):
            result.parse = self._aparsing(result.parse)
        else:
            result.parse = self._parsing(result.parse)

    def _reading(self, read: Any) -> Any:
        def reading() -> Any:
            with _Reading(self):
                return read()

        return reading

    def _areading(self, read: Any) -> Any:
        async def reading() -> Any:
            with _Reading(self):
                return await read()

        return reading

    def _parsing(self, parse: Any) -> Any:
        @functools.wraps(parse)
        def parsing(*args: Any, **kwargs: Any) -> Any:
            return self.as_chunks(parse(*args, **kwargs))

        return parsing

    def _aparsing(self, parse: Any) -> Any:
        @functools.wraps(parse)
        async def parsing(*args: Any, **kwargs: Any) -> Any:
            return self.as_chunks(await parse(*args, **kwargs))

        return parsing

    def as_chunks(self, parsed: Any) -> Any:
        """Look at each chunk, if what was parsed is a stream of them."""
        with Sheltered(self.watches):
            inner = getattr(parsed, "_iterator", None)
            if inner is not None and not isinstance(inner, _Chunks):
                parsed._iterator = _Chunks(inner, self)  # noqa: SLF001 - the seam
                self.streams = True
        return parsed


class _Reading:
    """The `with` around reading a whole body."""

    __slots__ = ("_open",)

    def __init__(self, opened: _Open) -> None:
        self._open = opened

    def __enter__(self) -> None:
        self._open.busy = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.busy = False
        for watch in self._open.watches:
            if error is None:
                watch.answered_in(self._open.http)
            else:
                watch.broke(error)


class _Chunks:
    """The chunks of a stream, looked at on their way."""

    __slots__ = ("_inner", "_open")

    def __init__(self, inner: Any, opened: _Open) -> None:
        self._inner = inner
        self._open = opened

    def __iter__(self) -> _Chunks:
        return self

    def __aiter__(self) -> _Chunks:
        return self

    def __next__(self) -> Any:
        """Let one chunk through."""
        with _Step(self._open):
            chunk = self._inner.__next__()
        for watch in self._open.watches:
            watch.saw(chunk)
        return chunk

    async def __anext__(self) -> Any:
        """Let one chunk through."""
        with _Step(self._open):
            chunk = await self._inner.__anext__()
        for watch in self._open.watches:
            watch.saw(chunk)
        return chunk


class _Step(_Reading):
    """The `with` around waiting for one chunk."""

    __slots__ = ()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.busy = False
        if error is None:
            return
        for watch in self._open.watches:
            if isinstance(error, (StopIteration, StopAsyncIteration)):
                watch.ended()
            else:
                watch.broke(error)
