# SPDX-License-Identifier: MIT
"""How an answer is seen on its way to the caller, without a layer around it.

The client builds its answers with `cls(**fields)`, from the fields as they came over
the wire. It is given a spy for `cls`: that sees the raw fields, also those which the
client's models drop, and returns what `cls` makes of them.

A stream is the client's own generator, returned as it is. Its beginning and its end are
seen where it opens the HTTP answer, `with self._client.stream(...)`: for the one call,
`self` is a stand-in that shares everything with the caller's client but `_client`. The
`with` begins at the first `next()` and ends on every way out, so nothing has to be
wrapped around a generator, whose `close`, `throw` and finalization stay exact. (An
async generator around it would be a second one for the event loop to finalize.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ometrics.errors import TRUNCATED
from ometrics.observing import Watch, guarded, report
from ometrics.responses import Told, told_by_ollama, told_by_usage

if TYPE_CHECKING:
    from types import TracebackType

    from ometrics.collector import MetricsCollector

_Client = TypeVar("_Client")
_Fields = Mapping[str, Any]


def answers(fields: _Fields) -> bool | None:
    """Whether a chunk's output is of the answer; `None` if it has no output."""
    message = fields.get("message")
    if isinstance(message, dict):
        if message.get("content") or message.get("tool_calls"):
            return True
        return False if message.get("thinking") else None
    if fields.get("response") or fields.get("image"):
        return True
    return False if fields.get("thinking") else None


def told(fields: _Fields) -> Told:
    """The numbers of a finished answer."""
    usage = fields.get("usage")
    return told_by_ollama(fields) if usage is None else told_by_usage(usage)


class OllamaWatch(Watch):
    """A watch that reads Ollama's answers."""

    __slots__ = ()

    @guarded
    def answered(self, fields: _Fields) -> None:
        """The answer is complete; one that says it is not done was cut short."""
        if fields.get("done", True):
            self.succeeded(told(fields))
        else:
            self.failed(TRUNCATED, told(fields))


class AnswerSpy:
    """Stands for the class of an unstreamed answer."""

    __slots__ = ("_cls", "_watches")

    def __init__(self, cls: Any, watches: tuple[OllamaWatch, ...]) -> None:
        self._cls = cls
        self._watches = watches

    def __call__(self, /, **fields: Any) -> Any:
        """Build the answer."""
        answer = self._cls(**fields)
        for watch in self._watches:
            watch.answered(fields)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cls, name)


class StreamSpy(AnswerSpy):
    """Stands for the class of a stream's chunks."""

    __slots__ = ()

    def __call__(self, /, **fields: Any) -> Any:
        """Build the chunk."""
        watches = self._watches
        for watch in watches:  # a chunk's only cost, so no more calls than it takes
            try:
                answer = answers(fields)
                if answer is not None and watch.call is not None:
                    watch.call.chunk(answer)
            except Exception as error:  # noqa: BLE001 - the caller's call comes first
                report((watch.collector,), error)
        chunk = self._cls(**fields)
        if fields.get("done"):
            for watch in watches:
                watch.answered(fields)
        return chunk


class _Opening:
    """The `with` around a streamed HTTP answer, from the request to its end."""

    __slots__ = ("_manager", "_watches")

    def __init__(self, manager: Any, watches: tuple[OllamaWatch, ...]) -> None:
        self._manager = manager
        self._watches = watches

    def _begin(self) -> None:
        for watch in self._watches:
            watch.start()

    def _end(self, error: BaseException | None) -> None:
        # Only the first end counts: after the chunk that said `done` this is nothing.
        for watch in self._watches:
            if error is None:
                watch.failed(TRUNCATED)
            else:
                watch.raised(error)

    def __enter__(self) -> Any:
        self._begin()
        try:
            return self._manager.__enter__()
        except BaseException as error:
            self._end(error)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        self._end(error)
        return self._manager.__exit__(kind, error, trace)

    async def __aenter__(self) -> Any:
        self._begin()
        try:
            return await self._manager.__aenter__()
        except BaseException as error:
            self._end(error)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        self._end(error)
        return await self._manager.__aexit__(kind, error, trace)


class _Http:
    """The client's HTTP client, whose streams are watched."""

    __slots__ = ("_http", "_watches")

    def __init__(self, http: Any, watches: tuple[OllamaWatch, ...]) -> None:
        self._http = http
        self._watches = watches

    def stream(self, *args: Any, **kwargs: Any) -> _Opening:
        """As httpx's."""
        return _Opening(self._http.stream(*args, **kwargs), self._watches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._http, name)


def seen_by(client: object) -> tuple[MetricsCollector, ...]:
    """The collectors that already watch what this stand-in or wrapped client does."""
    seen: tuple[MetricsCollector, ...] = getattr(client, "_ometrics_seen", ())
    return seen


def relative_of(
    client: _Client, subclass_of: Callable[[Any], Any], **slots: Any
) -> _Client:
    """An instance of a subclass that shares all attributes with the client."""
    relative = object.__new__(subclass_of(client.__class__))
    relative.__dict__ = vars(client)
    for name, value in slots.items():
        setattr(relative, name, value)
    return cast("_Client", relative)


@functools.lru_cache(maxsize=64)
def _stand_in_class(kind: Any) -> Any:
    def http_of(self: Any) -> _Http:
        return _Http(self._ometrics_of._client, self._ometrics_watches)  # noqa: SLF001

    return type(kind)(
        kind.__name__,
        (kind,),
        {
            "__slots__": ("_ometrics_of", "_ometrics_seen", "_ometrics_watches"),
            "__module__": kind.__module__,
            "_client": property(http_of),
        },
    )


def stand_in(client: _Client, watches: tuple[OllamaWatch, ...]) -> _Client:
    """The client for one stream; the client itself if that cannot be made."""
    try:
        mine = tuple(watch.collector for watch in watches)
        return relative_of(
            client,
            _stand_in_class,
            _ometrics_of=client,
            _ometrics_seen=seen_by(client) + mine,
            _ometrics_watches=watches,
        )
    except Exception as error:  # noqa: BLE001 - the caller's call comes first
        report((watch.collector for watch in watches), error)
        return client
