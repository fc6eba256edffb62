"""`io.prometheus.client` messages for the official protobuf runtime, to read pages.

Declared here from the numbers of client_model's `metrics.proto`, so that our encoder is
read by something that shares no code with it.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.decoder import _DecodeVarint32

_TYPES = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _TYPES.TYPE_DOUBLE,
    "enum": _TYPES.TYPE_INT32,
    "int32": _TYPES.TYPE_INT32,
    "int64": _TYPES.TYPE_INT64,
    "sint32": _TYPES.TYPE_SINT32,
    "sint64": _TYPES.TYPE_SINT64,
    "string": _TYPES.TYPE_STRING,
    "uint32": _TYPES.TYPE_UINT32,
    "uint64": _TYPES.TYPE_UINT64,
}
_MESSAGES = {
    "LabelPair": {"name": (1, "string"), "value": (2, "string")},
    "Timestamp": {"seconds": (1, "int64"), "nanos": (2, "int32")},
    "Gauge": {"value": (1, "double")},
    "Counter": {"value": (1, "double"), "created_timestamp": (3, "Timestamp")},
    "Bucket": {"cumulative_count": (1, "uint64"), "upper_bound": (2, "double")},
    "BucketSpan": {"offset": (1, "sint32"), "length": (2, "uint32")},
    "Histogram": {
        "sample_count": (1, "uint64"),
        "sample_sum": (2, "double"),
        "bucket": (3, "*Bucket"),
        "schema": (5, "sint32"),
        "zero_threshold": (6, "double"),
        "zero_count": (7, "uint64"),
        "positive_span": (12, "*BucketSpan"),
        "positive_delta": (13, "*sint64"),
        "created_timestamp": (15, "Timestamp"),
    },
    "Metric": {
        "label": (1, "*LabelPair"),
        "gauge": (2, "Gauge"),
        "counter": (3, "Counter"),
        "histogram": (7, "Histogram"),
    },
    "MetricFamily": {
        "name": (1, "string"),
        "help": (2, "string"),
        "type": (3, "enum"),
        "metric": (4, "*Metric"),
        "unit": (5, "string"),
    },
}


def _declare() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="metrics.proto", package="io.prometheus.client", syntax="proto2"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, declared) in fields.items():
            field = message.field.add(name=field_name, number=number)
            repeated = declared.startswith("*")
            field.label = _TYPES.LABEL_REPEATED if repeated else _TYPES.LABEL_OPTIONAL
            type_name = declared.strip("*")
            # Readers take both; this makes the sizes below comparable.
            field.options.packed = repeated and type_name in _SCALARS
            if type_name in _SCALARS:
                field.type = _SCALARS[type_name]
            else:
                field.type = _TYPES.TYPE_MESSAGE
                field.type_name = f".io.prometheus.client.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("io.prometheus.client.MetricFamily")
    return message_factory.GetMessageClass(found)


MetricFamily = _declare()


def parse(page: bytes) -> dict[str, Any]:
    """Name -> family, of a delimited page; unknown fields are an error."""
    families = {}
    at = 0
    while at < len(page):
        size, at = _DecodeVarint32(page, at)
        family = MetricFamily.FromString(page[at : at + size])
        # What our declaration does not know would be lost on the way back.
        assert family.ByteSize() == size
        at += size
        assert family.name not in families
        families[family.name] = family
    return families


def labels_of(metric: Any) -> dict[str, str]:
    """Labels of a metric."""
    return {pair.name: pair.value for pair in metric.label}


def native_buckets(histogram: Any) -> dict[int, int]:
    """Prometheus' bucket index -> count, of buckets that are not empty."""
    counts: dict[int, int] = {}
    deltas = iter(histogram.positive_delta)
    index = count = 0
    for span in histogram.positive_span:
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            if count:
                counts[index] = count
            index += 1
    assert [] == list(deltas)
    return counts
