# SPDX-License-Identifier: MIT
"""JSON: the original package's document with our additions under new keys.

`_document.py` says which keys there are, `_json.pyx` writes them; this module reads
them back, looks for contradictions, and writes files. `load(dump(s)) == s`.

Writing: of 100 models with 200 latencies each, 260 kB, structs for msgspec, with the
counts written in C beside them and an indenting pass afterwards, took 7.5 million
instructions; the plan in C, which hands msgspec only floats, strings and times, takes
5.2 million. Reading: a document that `dump` wrote is recognized by writing it again, so
only what a snapshot is made of is decoded: a sixth of the time that it takes to decode
and check every key. Whatever is not the same to the last byte is decoded whole,
validated, and compared key by key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec

from ometrics import _json
from ometrics.export import _document as doc
from ometrics.export.files import AnyPath, replace_file
from ometrics.fields import Gauge, fields_of
from ometrics.histogram import (
    UINT64_MAX,
    LatencyHistogram,
    TokenHistogram,
    layout_of,
)
from ometrics.models import OLLAMA, CallMetrics, PerformanceMetrics
from ometrics.snapshot import Snapshot, TaskStatistics

_encode: Final = msgspec.json.Encoder().encode
_writer: Final = _json.JsonWriter(
    doc.plan(), doc.UNITS, doc.QUANTILES, layout_of, _encode, msgspec.structs.astuple
)
_whole: Final = msgspec.json.Decoder(doc.struct_of(Snapshot))
_source: Final = msgspec.json.Decoder(doc.source_of(Snapshot))


def dump(snapshot: Snapshot) -> bytes:
    """
    A snapshot as a JSON document: UTF-8, two-space indent, a line feed at the end.

    Raises:
        ValueError: The snapshot holds a number that JSON cannot say (NaN, infinity) or
            a count beyond 64 bits; the message names the field.
    """
    return _writer.write(snapshot)


def load(data: bytes | str) -> Snapshot:
    """
    Read what `dump` wrote, in any version of this package.

    Keys that this one does not know are ignored. What an earlier one did not count is
    `None` where a number can be unknown, else 0, nothing, or a histogram of nothing.

    Raises:
        ValueError: Not such a document, or one that contradicts itself; the message
            names the field.
    """
    try:
        snapshot: Snapshot = _built(Snapshot, _source.decode(data))
        _check(snapshot)
        if dump(snapshot) == (data.encode() if isinstance(data, str) else data):
            return snapshot
    except (ValueError, OverflowError, RecursionError):
        pass  # what is wrong is found out below
    return _load_strictly(data)


def write(snapshot: Snapshot, path: AnyPath) -> None:
    """
    Write the document to a file, atomically: readers see the old one or the new one.

    Raises:
        OSError: The file could not be written and is as it was; the error names it.
    """
    replace_file(path, dump(snapshot))


# --- Document to snapshot


class _ContradictionError(ValueError):
    """What is wrong, and the path to it from here."""

    def __init__(self, at: str, why: str) -> None:
        super().__init__(at, why)
        self.at = at
        self.why = why

    def below(self, step: str) -> _ContradictionError:
        return _ContradictionError(step + self.at, self.why)


def _built(owner: type, document: Any) -> Any:
    """The read type of an object, whole or only what it is made of."""
    names, values_of, converted = _plan(owner)
    values = dict(zip(names, values_of(document), strict=True))
    if msgspec.UNSET in values.values():  # of a version that did not count it
        values = {name: v for name, v in values.items() if v is not msgspec.UNSET}
    for name, key, convert in converted:
        if values.get(name) is not None:
            try:
                values[name] = convert(values[name])
            except _ContradictionError as error:
                raise error.below(f".{key}") from None
            except OverflowError:
                raise _ContradictionError(f".{key}", "not a time of UTC") from None
    return owner(**values)


@cache
def _plan(
    owner: type,
) -> tuple[
    list[str], Callable[[Any], Any], list[tuple[str, str, Callable[[Any], Any]]]
]:
    """Names of the fields, what gets them all, and what each has to become."""
    keys = [key for key in doc.keys_of(owner) if key.field is not None]
    hints = get_type_hints(owner)
    names = [str(key.source) for key in keys]
    converted = [
        (name, key.name, convert)
        for name, key in zip(names, keys, strict=True)
        if (convert := _conversion(hints[name])) is not None
    ]
    return names, attrgetter(*(key.name for key in keys)), converted


def _conversion(hint: Any) -> Callable[[Any], Any] | None:
    if hint in doc.OWNERS:
        return lambda value: _built(hint, value)
    if hint in _HISTOGRAMS:
        return _HISTOGRAMS[hint]
    if hint is datetime:
        return _utc
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is not None and not isinstance(origin, type):
        origin = None
    if origin is not None and issubclass(origin, Mapping):
        member = _conversion(arguments[1])
        return None if member is None else lambda value: _members(member, value)
    for argument in arguments:  # of `X | None`
        if (convert := _conversion(argument)) is not None:
            return convert
    return None


def _members(convert: Callable[[Any], Any], mapping: dict[str, Any]) -> dict[str, Any]:
    members = {}
    for name, value in mapping.items():
        try:
            members[name] = convert(value)
        except _ContradictionError as error:
            raise error.below(f"[{name!r}]") from None
    return members


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo is timezone.utc else time.astimezone(timezone.utc)


@lru_cache(maxsize=64)
def _layout(buckets: tuple[float, ...]) -> tuple[tuple[float, ...], Any]:
    """The layout, and one tuple for all equal ones."""
    return buckets, layout_of(buckets)


def _cells(hist: Any, shift: int) -> tuple[tuple[float, ...], int, bytes]:
    """The cells of an object of a histogram, whose indices are shifted by its unit."""
    exponential = hist.exponential
    try:
        buckets, layout = _layout(hist.bucket_bounds_seconds)
    except ValueError as error:
        raise _ContradictionError(".bucket_bounds_seconds", str(error)) from None
    expected = len(layout.bounds) + 1
    if len(hist.explicit.counts) != expected:
        raise _ContradictionError(".explicit.counts", f"must have {expected} counts")
    try:
        first, cells = layout.assemble(
            exponential.offset - (shift if exponential.counts else 0),
            exponential.counts,
            exponential.underflow,
            exponential.overflow,
            hist.explicit.counts,
        )
    except (ValueError, OverflowError) as error:
        raise _ContradictionError(".exponential", str(error)) from None
    return buckets, first, cells


def _to_latencies(hist: Any) -> LatencyHistogram:
    buckets, first, cells = _cells(hist, 0)
    try:
        return LatencyHistogram(
            bucket_bounds=buckets,
            min=hist.min_seconds,
            max=hist.max_seconds,
            first_cell=first,
            cells=cells,
            sum_ns=hist.sum_ns,
        )
    except ValueError as error:
        raise _of_field(error, {"min": "min_seconds", "max": "max_seconds"}) from None


def _to_tokens(hist: Any) -> TokenHistogram:
    buckets, first, cells = _cells(hist, TokenHistogram.overflow_index - 384)
    try:
        return TokenHistogram(
            bucket_bounds=buckets,
            min=hist.min,
            max=hist.max,
            first_cell=first,
            cells=cells,
            total=hist.total,
        )
    except ValueError as error:
        raise _of_field(error, {}) from None


def _of_field(error: ValueError, keys: dict[str, str]) -> _ContradictionError:
    """A histogram's message starts with the field that is wrong."""
    field, _, why = str(error).partition(" ")
    return _ContradictionError(f".{keys.get(field, field)}", why)


_HISTOGRAMS: Final[dict[Any, Callable[[Any], Any]]] = {
    LatencyHistogram: _to_latencies,
    TokenHistogram: _to_tokens,
}


# --- What a snapshot cannot say of itself


def _check(snapshot: Snapshot) -> None:
    """Refuse fields that contradict each other, whatever they are computed into."""
    for name, model in snapshot.models.items():
        try:
            _check_model(name, model)
        except _ContradictionError as error:
            raise error.below(f".model_metrics[{name!r}]") from None
    try:
        _check_tasks(snapshot.task_statistics)
    except _ContradictionError as error:
        raise error.below(".task_statistics") from None


def _check_model(name: str, model: PerformanceMetrics) -> None:
    if model.model != name:
        raise _ContradictionError(".model", f"{model.model!r} has another key")
    _check_errors(model)
    known = model.latency_hist.count + model.latency_unknown
    if model.successful_reqs != min(known, UINT64_MAX):
        raise _ContradictionError(
            ".successful_reqs",
            f"{model.successful_reqs}, but {known} latencies are known or counted as"
            " unknown",
        )
    for operation, call in model.calls.items():
        try:
            _check_call(operation, call)
        except _ContradictionError as error:
            raise error.below(f".calls[{operation!r}]") from None


# What is known of calls in flight beside their number.
_OF_RUNNING: Final = [
    field.name
    for field in fields_of(CallMetrics)
    if isinstance(field, Gauge) and field.name != "in_flight"
]


def _check_call(key: str, call: CallMetrics) -> None:
    suffix = "" if call.provider == OLLAMA else f"@{call.provider}"
    if key != call.operation + suffix:
        raise _ContradictionError(
            ".operation", f"{call.operation!r} of {call.provider!r} has another key"
        )
    _check_errors(call)
    if call.latency.count > call.successful_reqs:
        raise _ContradictionError(
            ".successful_reqs",
            f"{call.successful_reqs}, but {call.latency.count} latencies are known",
        )
    if (call.in_flight > 0) != (call.oldest_in_flight_seconds is not None):
        raise _ContradictionError(
            ".oldest_in_flight_seconds",
            f"{call.oldest_in_flight_seconds} with {call.in_flight} calls in flight",
        )
    for name in _OF_RUNNING if call.in_flight == 0 else ():
        if getattr(call, name) is not None:
            raise _ContradictionError(f".{name}", "known, but no call is in flight")


def _check_errors(counted: PerformanceMetrics | CallMetrics) -> None:
    errors = sum(counted.errors.values())
    if counted.failed_reqs != min(errors, UINT64_MAX):
        raise _ContradictionError(
            ".errors", f"add up to {errors} of {counted.failed_reqs} failures"
        )


def _check_tasks(tasks: TaskStatistics) -> None:
    known = tasks.total_tasks - tasks.duration_unknown
    low, high = tasks.min_completion_ms, tasks.max_completion_ms
    if known < 0:
        raise _ContradictionError(
            ".duration_unknown",
            f"{tasks.duration_unknown} of {tasks.total_tasks} tasks",
        )
    for key, value, nothing in (
        ("sum_ns", tasks.sum_ns, 0),
        ("min_completion_ms", low, None),
        ("max_completion_ms", high, None),
    ):
        if not known and value != nothing:
            raise _ContradictionError(f".{key}", f"{value} of no known duration")
    if low is not None and high is not None and low > high:
        raise _ContradictionError(
            ".min_completion_ms", f"{low} is above the maximum {high}"
        )
    # Each duration is rounded to nanoseconds before it is added.
    if high is not None and tasks.sum_ns > known * (int(high * 1e6) + 1):
        raise _ContradictionError(
            ".sum_ns", f"{tasks.sum_ns} is above {known} times the maximum {high} ms"
        )


# --- What is wrong with a document, and where


def _load_strictly(data: bytes | str) -> Snapshot:
    """Read any document, or say which of its keys is wrong."""
    try:
        _check_version(data)
        document = _whole.decode(data)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a metrics document: {_located(error, data)}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ValueError(f"not a JSON document: {error}") from None
    except RecursionError:
        raise ValueError("not a JSON document: it is nested too deeply") from None
    try:
        _refuse_too_large(document, "")
        snapshot: Snapshot = _built(Snapshot, document)
        _check(snapshot)
        _compare(document, _whole.decode(dump(snapshot)), "")
    except _ContradictionError as error:
        raise ValueError(f"not a metrics document: ${error.at}: {error.why}") from None
    return snapshot


class _Version(msgspec.Struct):
    schema_version: int | None = None


def _check_version(data: bytes | str) -> None:
    version = msgspec.json.decode(data, type=_Version).schema_version
    if version is None:
        raise ValueError(
            "not a metrics document: no $.schema_version; only exports of ometrics can"
            " be loaded (those of the original package do not say enough)"
        )
    if version != doc.SCHEMA_VERSION:
        raise ValueError(
            f"$.schema_version: {version} is unknown, this ometrics reads"
            f" {doc.SCHEMA_VERSION}; load it with the version that wrote it, or upgrade"
        )


def _located(error: Exception, data: bytes | str) -> str:
    """The message of a validation error, with the model's name where it is known."""
    message = str(error)
    if _ANY_MODEL not in message:
        return message
    models = msgspec.json.decode(data, type=_RawModels).model_metrics
    for name, raw in models.items():
        try:
            msgspec.json.decode(raw, type=doc.struct_of(PerformanceMetrics))
        except msgspec.ValidationError:
            return message.replace(_ANY_MODEL, f"$.model_metrics[{name!r}]")
    return message


_ANY_MODEL: Final = "$.model_metrics[...]"


class _RawModels(msgspec.Struct):
    model_metrics: dict[str, msgspec.Raw]


def _items(value: Any) -> list[tuple[str, Any]]:
    """The values inside of one, each with its step of the path."""
    if isinstance(value, dict):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"[{i}]", item) for i, item in enumerate(value)]
    if isinstance(value, msgspec.Struct):
        return [(f".{name}", getattr(value, name)) for name in value.__struct_fields__]
    return []


def _refuse_too_large(value: Any, at: str) -> None:
    """Refuse an integer that 64 bits cannot hold."""
    if isinstance(value, list) and max(value, default=0) <= UINT64_MAX:
        return
    if isinstance(value, int) and abs(value) > UINT64_MAX:
        raise _ContradictionError(at, "more than 64 bits can count")
    for step, item in _items(value):
        _refuse_too_large(item, at + step)


# Numbers that follow from others may have been written with fewer digits.
_RELATIVE: Final = 1e-9


def _compare(found: Any, expected: Any, at: str) -> None:
    """Refuse the first value that does not follow from what a snapshot is made of."""
    if found is msgspec.UNSET or found == expected:
        return
    inner, others = dict(_items(found)), dict(_items(expected))
    if isinstance(found, float) and isinstance(expected, float):
        same = math.isclose(found, expected, rel_tol=_RELATIVE)
    elif inner:
        same = inner.keys() == others.keys()
    else:
        same = found == expected
    if not same:
        raise _ContradictionError(
            at, f"{found}, but the rest of the document says {expected}"
        )
    for step, item in inner.items():
        _compare(item, others[step], at + step)
