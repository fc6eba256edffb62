# SPDX-License-Identifier: MIT
"""JSON: the original package's document with our additions under new keys.

`_document.py` holds the typed structs of the document (and so the schema); this module
fills them from a `Snapshot`, reads them back, and writes files. `load(dump(s)) == s`.

Why msgspec, and why two things are done beside it: of 100 models with 1,000 lognormal
latencies each (200 kB without white space; CPython 3.11, one noisy core) `json` takes
15 ms, orjson 3.13 0.30 ms, or 0.40 ms with its indent, and msgspec 0.22 0.42 ms from
dicts and lists, or 0.08 ms from our structs when `_json.pyx` has written the counts (as
`msgspec.Raw`, 0.08 ms). Only msgspec also validates by type and makes the schema.
`msgspec.json.format` would add 0.47 ms, and like orjson puts each of the hundreds of
counts on a line of its own; `_json.indent` takes 0.08 ms and keeps arrays on one line.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Final

import msgspec

from ometrics import _json
from ometrics._json import go_duration, go_duration_ns
from ometrics.export import _document as doc
from ometrics.export.files import AnyPath, replace_file
from ometrics.histogram import UINT64_MAX, LatencyHistogram, labels_of, layout_of
from ometrics.snapshot import (
    CALL_HISTOGRAMS,
    OVERFLOW_MODEL,
    CallMetrics,
    PerformanceMetrics,
    ResourceMetrics,
    Snapshot,
    TaskStatistics,
    percentage,
)

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(doc.Document)


def dump(snapshot: Snapshot) -> bytes:
    """
    A snapshot as a JSON document: UTF-8, two-space indent, a line feed at the end.

    Raises:
        ValueError: The snapshot holds a number that JSON cannot say (NaN, infinity).
    """
    document = _of_snapshot(snapshot)
    try:
        compact = _encoder.encode(document)
    except UnicodeEncodeError:
        # Half a surrogate pair, of a hand-made snapshot: the core mends names.
        compact = _encoder.encode(_mended(document))
    return _json.indent(compact)


def load(data: bytes | str) -> Snapshot:
    """
    Read what `dump` wrote. Keys that this version does not know are ignored.

    Raises:
        ValueError: Not such a document; the message names the field.
    """
    try:
        _check_version(data)
        document = _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a metrics document: {_located(error, data)}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ValueError(f"not a JSON document: {error}") from None
    if (path := _too_large(document, "$")) is not None:
        raise _contradiction(path, "more than 64 bits can count")
    return _to_snapshot(document)


def write(snapshot: Snapshot, path: AnyPath) -> None:
    """
    Write the document to a file, atomically: readers see the old one or the new one.

    Raises:
        OSError: The file could not be written and is as it was; the error names it.
    """
    replace_file(path, dump(snapshot))


# --- Snapshot to document


@lru_cache(maxsize=64)
def _views_of(buckets: tuple[float, ...]) -> tuple[_json.Views, Any]:
    """What renders histograms with these buckets, and the buckets as JSON."""
    layout = layout_of(buckets)
    bounds = _encoder.encode(layout.bounds)
    views = _json.Views(layout, buckets, labels_of(buckets), bounds, doc.QUANTILES)
    return views, msgspec.Raw(_encoder.encode(buckets))


def _of_histogram(hist: LatencyHistogram) -> doc.Histogram:
    views, bounds = _views_of(hist.bucket_bounds)
    first, cells = hist.first_cell, hist.cells
    count, buckets, explicit, exponential = views.render(first, cells)
    sum_ns, low, high = hist.sum_ns, hist.min, hist.max
    mean, percentiles = None, doc.NO_PERCENTILES
    if count:
        mean = sum_ns / count / 1e9
        percentiles = doc.Percentiles(*views.quantiles(first, cells, count, low, high))
    return doc.Histogram(
        *(count, sum_ns, sum_ns / 1e9, mean, low, high),
        *(percentiles, buckets, bounds, explicit, exponential),
    )


def _of_model(metrics: PerformanceMetrics) -> doc.Model:
    hist = _of_histogram(metrics.latency_hist)
    low, high, mean = hist.min_seconds, hist.max_seconds, hist.mean_seconds
    calls = metrics.calls
    total = metrics.total_requests
    return doc.Model(
        metrics.model,
        min(total, UINT64_MAX),
        metrics.successful_reqs,
        metrics.failed_reqs,
        "0s" if mean is None else go_duration(mean),
        metrics.throughput or 0.0,
        metrics.error_rate,
        metrics.tokens_processed,
        metrics.avg_tokens_per_req or 0.0,
        mean,
        None if low is None else go_duration(low),
        low,
        None if high is None else go_duration(high),
        high,
        go_duration_ns(hist.sum_ns),
        hist.total_seconds,
        metrics.cancelled_reqs,
        metrics.latency_unknown,
        metrics.errors,
        _utc(metrics.last_updated),
        metrics.uptime_seconds,
        hist,
        {name: _of_call(call) for name, call in calls.items()} if calls else {},
    )


def _of_call(call: CallMetrics) -> doc.Call:
    histograms: Any = {
        name: _of_histogram(getattr(call, name)) for name in CALL_HISTOGRAMS
    }
    return doc.Call(
        decode_tokens_per_second=call.decode_tokens_per_second,
        prefill_tokens_per_second=call.prefill_tokens_per_second,
        **{name: getattr(call, name) for name in _CALL_FIELDS},
        **histograms,
    )


def _of_tasks(tasks: TaskStatistics) -> doc.Tasks:
    return doc.Tasks(
        total_tasks=min(tasks.total_tasks, UINT64_MAX),
        success_rate=tasks.success_rate,
        avg_completion_ms=tasks.avg_completion_ms,
        last_updated=_utc(tasks.last_updated),
        **{name: getattr(tasks, name) for name in _TASK_FIELDS},
    )


def _of_resources(resources: ResourceMetrics) -> doc.Resources:
    # The original's megabytes are an integer, so the key says one; ours says the rest.
    return doc.Resources(
        memory_usage_mb=round(resources.memory_usage_mb),
        cpu_usage_percent=resources.cpu_usage_percent,
        goroutine_count=resources.goroutine_count,
        memory_usage_mb_exact=resources.memory_usage_mb,
        timestamp=resources.timestamp.astimezone(timezone.utc),
    )


def _of_snapshot(snapshot: Snapshot) -> doc.Document:
    models = {name: _of_model(m) for name, m in snapshot.models.items()}
    requests = sum([model.total_requests for model in models.values()])
    errors = sum([model.failed_reqs for model in models.values()])
    overflow = models.get(OVERFLOW_MODEL)
    resources = snapshot.resource_metrics
    return doc.Document(
        start_time=snapshot.start_time.astimezone(timezone.utc),
        collection_time=snapshot.collection_time.astimezone(timezone.utc),
        model_metrics=models,
        task_statistics=_of_tasks(snapshot.task_statistics),
        resource_metrics=None if resources is None else _of_resources(resources),
        total_requests=min(requests, UINT64_MAX),
        total_errors=min(errors, UINT64_MAX),
        overall_error_rate=percentage(errors, requests),
        schema_version=doc.SCHEMA_VERSION,
        overflowed_requests=0 if overflow is None else overflow.total_requests,
        **{name: getattr(snapshot, name) for name in _SNAPSHOT_FIELDS},
    )


def _utc(time: datetime | None) -> datetime | None:
    if time is None or time.tzinfo is timezone.utc:
        return time
    return time.astimezone(timezone.utc)


def _mended(value: Any) -> Any:
    """A document in which every string can be encoded."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, msgspec.Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        return _mended(fields)
    return value


# --- Document to snapshot


def _to_snapshot(document: doc.Document) -> Snapshot:
    models = {
        name: _to_model(f"$.model_metrics[{name!r}]", model)
        for name, model in document.model_metrics.items()
    }
    resources = document.resource_metrics
    requests = sum(model.total_requests for model in models.values())
    errors = sum(model.failed_reqs for model in models.values())
    _agree("$.total_requests", document.total_requests, requests)
    _agree("$.total_errors", document.total_errors, errors)
    return Snapshot(
        start_time=document.start_time.astimezone(timezone.utc),
        collection_time=document.collection_time.astimezone(timezone.utc),
        models=models,
        task_statistics=_to_tasks(document.task_statistics),
        resource_metrics=None if resources is None else _to_resources(resources),
        **{name: getattr(document, name) for name in _SNAPSHOT_FIELDS},
    )


def _to_model(at: str, model: doc.Model) -> PerformanceMetrics:
    requests = model.successful_reqs + model.failed_reqs
    _agree(f"{at}.total_requests", model.total_requests, requests)
    return PerformanceMetrics(
        last_updated=_utc(model.last_updated),
        latency_hist=_to_histogram(f"{at}.latency_hist", model.latency_hist),
        calls={
            name: _to_call(f"{at}.calls[{name!r}]", call)
            for name, call in model.calls.items()
        },
        **{name: getattr(model, name) for name in _MODEL_FIELDS},
    )


def _to_call(at: str, call: doc.Call) -> CallMetrics:
    histograms: Any = {
        name: _to_histogram(f"{at}.{name}", getattr(call, name))
        for name in CALL_HISTOGRAMS
    }
    return CallMetrics(
        **{name: getattr(call, name) for name in _CALL_FIELDS}, **histograms
    )


def _to_histogram(at: str, hist: doc.Histogram) -> LatencyHistogram:
    buckets = tuple(hist.bucket_bounds_seconds)
    explicit, exponential = hist.explicit, hist.exponential
    try:
        layout = layout_of(buckets)
    except ValueError as error:
        raise _contradiction(f"{at}.bucket_bounds_seconds", str(error)) from None
    if tuple(explicit.bounds_seconds) != layout.bounds:
        raise _contradiction(
            f"{at}.explicit.bounds_seconds", f"must be {list(layout.bounds)}"
        )
    if len(explicit.counts) != len(layout.bounds) + 1:
        raise _contradiction(
            f"{at}.explicit.counts", f"must have {len(layout.bounds) + 1} counts"
        )
    _agree(f"{at}.count", hist.count, sum(explicit.counts))
    try:
        first, cells = layout.assemble(
            exponential.offset,
            exponential.counts,
            exponential.underflow,
            exponential.overflow,
            explicit.counts,
        )
    except ValueError as error:
        raise _contradiction(f"{at}.exponential", str(error)) from None
    try:
        result = LatencyHistogram(
            bucket_bounds=buckets,
            sum_ns=hist.sum_ns,
            min=hist.min_seconds,
            max=hist.max_seconds,
            first_cell=first,
            cells=cells,
        )
    except ValueError as error:
        field, _, why = str(error).partition(" ")
        field = {"min": "min_seconds", "max": "max_seconds"}.get(field, field)
        raise _contradiction(f"{at}.{field}", why) from None
    _agree(f"{at}.exponential", result.count, hist.count)
    if result.buckets != hist.buckets:
        raise _contradiction(f"{at}.buckets", "other counts than explicit")
    return result


def _to_tasks(tasks: doc.Tasks) -> TaskStatistics:
    total = tasks.completed_tasks + tasks.failed_tasks
    _agree("$.task_statistics.total_tasks", tasks.total_tasks, total)
    return TaskStatistics(
        last_updated=_utc(tasks.last_updated),
        **{name: getattr(tasks, name) for name in _TASK_FIELDS},
    )


def _to_resources(resources: doc.Resources) -> ResourceMetrics:
    return ResourceMetrics(
        memory_usage_mb=resources.memory_usage_mb_exact,
        cpu_usage_percent=resources.cpu_usage_percent,
        goroutine_count=resources.goroutine_count,
        timestamp=resources.timestamp.astimezone(timezone.utc),
    )


# --- What is wrong, and where


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


def _contradiction(at: str, why: str) -> ValueError:
    return ValueError(f"not a metrics document: {at}: {why}")


def _agree(at: str, told: int, counted: int) -> None:
    if told != min(counted, UINT64_MAX):
        raise _contradiction(at, f"{told}, but its parts add up to {counted}")


def _located(error: Exception, data: bytes | str) -> str:
    """The message of a validation error, with the model's name where it is known."""
    message = str(error)
    if _ANY_MODEL not in message:
        return message
    models = msgspec.json.decode(data, type=_RawModels).model_metrics
    for name, raw in models.items():
        try:
            msgspec.json.decode(raw, type=doc.Model)
        except msgspec.ValidationError:
            return message.replace(_ANY_MODEL, f"$.model_metrics[{name!r}]")
    return message


_ANY_MODEL: Final = "$.model_metrics[...]"


class _RawModels(msgspec.Struct):
    model_metrics: dict[str, msgspec.Raw]


def _too_large(value: Any, at: str) -> str | None:
    """Path of the first integer that 64 bits cannot hold."""
    if isinstance(value, int):
        return at if abs(value) > UINT64_MAX else None
    items: Any = ()
    if isinstance(value, dict):
        items = [(f"[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(f"[{i}]", item) for i, item in enumerate(value)]
    elif isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
        items = [(f".{name}", getattr(value, name)) for name in names]
    paths = (_too_large(item, at + step) for step, item in items)
    return next((path for path in paths if path is not None), None)


_SNAPSHOT_FIELDS: Final = (
    *("instance_id", "uptime_seconds", "invalid_values", "truncated_names"),
    *("saturated", "events_emitted", "events_dropped", "internal_errors"),
)
_MODEL_FIELDS: Final = (
    *("model", "successful_reqs", "failed_reqs", "cancelled_reqs"),
    *("latency_unknown", "tokens_processed", "errors", "uptime_seconds"),
)
_CALL_FIELDS: Final = (
    *("operation", "successful_reqs", "failed_reqs", "cancelled_reqs", "in_flight"),
    *("oldest_in_flight_seconds", "prompt_tokens", "cached_tokens"),
    *("completion_tokens", "decode_tokens", "decode_ns", "prefill_tokens"),
    *("prefill_ns", "done_reasons", "errors"),
)
_TASK_FIELDS: Final = (
    *("completed_tasks", "failed_tasks", "min_completion_ms", "max_completion_ms"),
    *("duration_unknown", "sum_ns"),
)
