# SPDX-License-Identifier: MIT
"""Metrics by name: each number of a snapshot -> metric, type, unit and labels.

The table `METRICS` follows from the declarations of the fields (see `ometrics.fields`).
The exporters walk `families(snapshot)` and know no field of the snapshot; the page
`docs/metrics.md` is written from the same table.

The contract for an exporter:

- A `Family` is one metric with all its samples, which are pairs of labels and a value;
  `columns` are the same samples before anything is read, for those who write many.
  Each metric comes at most once, in the order of the table, and not at all when it has
  no sample. `None` never arrives: what nobody told has no sample (law 5).
- `MetricRow.name` is OpenTelemetry's (dots), `MetricRow.prometheus` its standard
  translation (underscores, unit, `_total`). `MetricRow.unit` is UCUM: `s`, `By`, `1`,
  `{things}`, or empty for `info`.
- `MetricRow.kind` says what the value is. `counter`: an int, or a float of seconds,
  that never goes back since `snapshot.start_time`; `gauge`: an int or a float; `info`:
  always 1, the content is in the labels; `histogram`: a `LatencyHistogram`, not empty
  except for `ometrics.request.duration`, cumulative since `snapshot.start_time`.
- Explicit bounds of a histogram: `metric.bounds`, or the user's `value.bucket_bounds`
  where that is `None`; `value.cumulative(bounds)` is exact for both. The exponential
  view is `value.exponential()`; what lies above its range (`overflow`) belongs into the
  bucket right above 2^12 s, so that every bucket view adds up to the count.
- Of a mapping of several snapshots, each sample has the label `instance` in front,
  which names the one that it is of.
- Labels are a tuple of `(OpenTelemetry attribute, value)`, unique within its family, or
  what the exporter's `encode` makes of it. Values are valid Unicode and otherwise as
  recorded: they may hold quotes, line ends, NUL and a megabyte of text.
  `prometheus_label` translates a key.

Left out, because a snapshot cannot tell them honestly: `gen_ai.server.*` (duration of a
request, time to first token, time per output token) want one value of each call, and a
server tells phases; these leave as `ometrics.call.phase.duration` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import (
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeVar,
    overload,
)

from ometrics import __version__, fields
from ometrics.fields import (
    Distribution,
    Field,
    Info,
    Kind,
    Members,
    Part,
    fields_of,
)
from ometrics.gpus import GpuMetrics
from ometrics.loaded import LoadedModel
from ometrics.models import CallMetrics, PerformanceMetrics
from ometrics.snapshot import ResourceMetrics, Snapshot, TaskStatistics
from ometrics.text import valid

Scope: TypeAlias = Literal["snapshot", "model", "call", "server", "gpu"]
Labels: TypeAlias = tuple[tuple[str, str], ...]
#: What is exported: one snapshot, or several by name, which stay apart.
Shown: TypeAlias = Snapshot | Mapping[str, Snapshot]
# What an exporter makes of labels; joined by `+`.
L = TypeVar("L", Labels, str, bytes)

# Attributes of the OpenTelemetry GenAI conventions.
MODEL: Final = "gen_ai.request.model"
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
#: Which of several snapshots a sample is of, where a page has them side by side.
INSTANCE: Final = "instance"

SCOPE_LABELS: Final[Mapping[Scope, tuple[str, ...]]] = {
    "snapshot": (),
    "model": (MODEL,),
    "call": (MODEL, OPERATION, PROVIDER),
    "server": (MODEL,),
    "gpu": ("gpu",),
}

_UNIT_SUFFIXES: Final = {
    "s": "seconds",
    "By": "bytes",
    "1": "ratio",
    "J": "joules",
    "W": "watts",
    "Cel": "celsius",
}


def prometheus_label(key: str) -> str:
    """The Prometheus label of an attribute: dots become underscores."""
    return key.replace(".", "_")


class MetricRow(NamedTuple):
    """
    One row of the table.

    Attributes:
        scope: What the reader is given: the snapshot, each model, each model and
            operation, each model that a server told of, or each GPU; `SCOPE_LABELS`
            names the labels that come with it.
        name: OpenTelemetry name.
        kind: `counter`, `gauge`, `histogram` or `info`.
        unit: UCUM unit.
        help: One sentence for people.
        source: The fields of the snapshot, for the documentation.
        parts: For each field the values of the own `labels`, and what gets the number
            or histogram from the owner (`None` if it is unknown). Where there are
            labels but no values, it gets a mapping from their values to numbers.
        labels: Labels beside those of the scope.
        bounds: Explicit bounds in seconds; `None` for the user's own.
    """

    scope: Scope
    name: str
    kind: Kind
    unit: str
    help: str
    source: str
    parts: tuple[tuple[Any, Callable[[Any], Any]], ...] = ()
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] | None = None

    @property
    def prometheus(self) -> str:
        """The Prometheus name, as OpenTelemetry's compatibility rules translate it."""
        name = self.prometheus_family
        return name + {"counter": "_total", "info": "_info"}.get(self.kind, "")

    @property
    def prometheus_family(self) -> str:
        """The same without `_total` or `_info`, as OpenMetrics names the family."""
        name = self.name.replace(".", "_")
        suffix = self.prometheus_unit
        return f"{name}_{suffix}" if suffix else name

    @property
    def prometheus_unit(self) -> str:
        """Unit for OpenMetrics: `seconds`, `bytes`, `ratio`, or empty."""
        return _UNIT_SUFFIXES.get(self.unit, "")


@dataclass(frozen=True)
class Column(Generic[L]):
    """
    Samples of a family that are read in the same way.

    Attributes:
        own: Labels that all of them have beside their owner's; `None` for none.
        owners: Pairs of labels and what has the value.
        read: Gets the value, `None` where it is unknown; if it is `None` itself, the
            owner is the value.
    """

    own: L | None
    owners: list[tuple[L, Any]]
    read: Callable[[Any], Any] | None

    def samples(self) -> Iterator[tuple[L, Any]]:
        """Pairs of labels and a value that is known."""
        own, read = self.own, self.read
        for labels, owner in self.owners:
            value = owner if read is None else read(owner)
            if value is not None:
                yield labels if own is None else labels + own, value

    def any(self) -> bool:
        """Whether there is a sample."""
        read = self.read
        if read is None:
            return bool(self.owners)
        return any(read(owner) is not None for _, owner in self.owners)


@dataclass(frozen=True)
class Family(Generic[L]):
    """
    One metric with all its samples.

    Attributes:
        metric: The row of the table.
        columns: Its samples, as they are read.
    """

    metric: MetricRow
    columns: list[Column[L]]

    @classmethod
    def of(cls, metric: MetricRow, samples: list[tuple[L, Any]]) -> Family[L]:
        """A family of samples that are known already."""
        return cls(metric, [Column(None, samples, None)])

    @property
    def samples(self) -> list[tuple[L, Any]]:
        """Pairs of labels and a value; `metric.kind` tells the value's type."""
        return [sample for column in self.columns for sample in column.samples()]


# --- From the declared fields to the table


class _Place(NamedTuple):
    """A declared field: the scope of its owner, and the part of it that it is in."""

    scope: Scope
    part: str
    field: Field

    @property
    def source(self) -> str:
        """The field in words of the snapshot, such as `models.*.calls.*.load`."""
        return f"{_SOURCE[self.scope]}{self.part and self.part + '.'}{self.field.name}"

    def read(self) -> Callable[[Any], Any]:
        """What gets the field's value from the owner, in the metric's unit."""
        get: Callable[[Any], Any] = attrgetter(self.field.name)
        if isinstance(self.field, Distribution) and not self.field.always:
            get = _not_empty(get)
        if self.field.convert is not None:
            get = _converted(get, self.field.convert)
        return _of_part(attrgetter(self.part), get) if self.part else get


_SOURCE: Final[Mapping[Scope, str]] = {
    "snapshot": "",
    "model": "models.*.",
    "call": "models.*.calls.*.",
    "server": "loaded_models.*.",
    "gpu": "gpus.*.",
}
_MEMBERS: Final[Mapping[str, tuple[type, Scope]]] = {
    "models": (PerformanceMetrics, "model"),
    "calls": (CallMetrics, "call"),
    "loaded_models": (LoadedModel, "server"),
    "gpus": (GpuMetrics, "gpu"),
}
_PARTS: Final[Mapping[str, type]] = {
    "task_statistics": TaskStatistics,
    "resource_metrics": ResourceMetrics,
}


def _not_empty(get: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A histogram of nothing is unknown, not zero."""
    return lambda owner: histogram if (histogram := get(owner)).cells else None


def _converted(
    get: Callable[[Any], Any], convert: Callable[[Any], float]
) -> Callable[[Any], Any]:
    return lambda owner: None if (value := get(owner)) is None else convert(value)


def _of_part(
    part: Callable[[Any], Any], get: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    return lambda owner: None if (inner := part(owner)) is None else get(inner)


def _places(owner: type, scope: Scope = "snapshot", part: str = "") -> Iterator[_Place]:
    """Every exported field of a read type and of what it holds, in their order."""
    for field in fields_of(owner):
        if isinstance(field, Members):
            yield from _places(*_MEMBERS[field.name])
        elif isinstance(field, Part):
            yield from _places(_PARTS[field.name], scope, field.name)
        elif field.metric is not None:
            yield _Place(scope, part, field)


def _table() -> tuple[MetricRow, ...]:
    """All metrics; fields that declare the same one are its parts."""
    rows: dict[fields.Metric, list[_Place]] = {}
    for place in _places(Snapshot):
        if place.field.metric is not None:
            rows.setdefault(place.field.metric, []).append(place)
    return tuple(_row(metric, places) for metric, places in rows.items())


def _row(metric: fields.Metric, places: list[_Place]) -> MetricRow:
    scope, _, field = places[0]
    parts, labels = _reading(places)
    source = [places[0].source, *(place.field.name for place in places[1:])]
    return MetricRow(
        *(scope, metric.name, field.kind, metric.unit, metric.help or field.help),
        *(", ".join(source), parts, labels, metric.bounds),
    )


def _reading(
    places: list[_Place],
) -> tuple[tuple[tuple[Any, Callable[[Any], Any]], ...], tuple[str, ...]]:
    """The parts of a metric, and the labels of its own."""
    field, read = places[0].field, places[0].read()
    if isinstance(field, Info):
        return ((None, _instance),), ("service.instance.id", "version")
    if field.by is not None:
        return ((None, read),), (field.by,)
    labels = tuple(dict.fromkeys(key for place in places for key in place.field.labels))
    if not labels:
        return ((None, read),), ()
    return (
        tuple((_own_values(place.field, labels), place.read()) for place in places),
        labels,
    )


def _own_values(field: Field, labels: tuple[str, ...]) -> Any:
    """The values of the labels, `None` for one that it has not; of one, itself."""
    values = tuple(field.labels.get(label) for label in labels)
    return values if len(values) > 1 or values[0] is None else values[0]


def _instance(snapshot: Snapshot) -> Mapping[tuple[str, str], int]:
    return {(valid(snapshot.instance_id), version()): 1}


#: One row a metric, in the order of the fields.
METRICS: Final = _table()


@overload
def families(snapshot: Shown) -> Iterator[Family[Labels]]: ...
@overload
def families(snapshot: Shown, encode: Callable[[Labels], L]) -> Iterator[Family[L]]: ...
def families(
    snapshot: Shown, encode: Callable[[Labels], Any] = tuple
) -> Iterator[Family[Any]]:
    """
    Every number of `snapshot`, metric by metric, as this module's docstring promises.

    Args:
        snapshot: What to export; or several by name, side by side. Only this one
            instant is read, so the numbers of all families belong together.
        encode: What to make of labels. It is called once a model and once an own label
            of a metric, and results are joined by `+`: far fewer calls than samples.
    """
    parts = [
        (encode(labels), part, _by_clean_name(part.models))
        for labels, part in _labelled(snapshot)
    ]
    owners: dict[Scope, list[tuple[Any, Any]]] = {}
    for metric in METRICS:
        if metric.scope not in owners:  # a piece of work: not all at once
            owners[metric.scope] = [
                (of_part + labels, owner)
                for of_part, part, models in parts
                for labels, owner in _owners(metric.scope, part, models, encode)
            ]
        columns = _columns(metric, owners[metric.scope], encode)
        if any(column.any() for column in columns):
            yield Family(metric, columns)


def _labelled(shown: Shown) -> list[tuple[Labels, Snapshot]]:
    if isinstance(shown, Snapshot):
        return [((), shown)]
    parts = _by_clean_name(shown)
    return [(((INSTANCE, name),), part) for name, part in parts.items()]


def _owners(
    scope: Scope,
    snapshot: Snapshot,
    models: Mapping[str, PerformanceMetrics],
    encode: Callable[[Labels], Any],
) -> list[tuple[Any, Any]]:
    """What the metrics of a scope are read from, each with its labels."""
    if scope == "snapshot":
        return [(encode(()), snapshot)]
    if scope == "gpu":
        gpus = _by_clean_name(snapshot.gpus)
        return [(encode((("gpu", name),)), gpu) for name, gpu in gpus.items()]
    if scope == "server":
        loaded = _by_clean_name(snapshot.loaded_models)
        return [(encode(((MODEL, name),)), model) for name, model in loaded.items()]
    if scope == "model":
        return [(encode(((MODEL, name),)), model) for name, model in models.items()]
    return [
        (encode(_call_labels(name, call)), call)
        for name, model in models.items()
        for call in _by_clean_name(model.calls).values()
    ]


def _call_labels(model: str, call: CallMetrics) -> Labels:
    return (
        (MODEL, model),
        (OPERATION, valid(call.operation)),
        (PROVIDER, valid(call.provider)),
    )


def _columns(
    metric: MetricRow, owners: list[tuple[Any, Any]], encode: Callable[[Labels], Any]
) -> list[Column[Any]]:
    if not metric.labels:
        return [Column(None, owners, read) for _, read in metric.parts]
    own = _OwnLabels(metric.labels, encode)
    return [
        Column(None, _by_key(owners, read, own), None)
        if values is None
        else Column(own[values], owners, read)
        for values, read in metric.parts
    ]


def _by_key(
    owners: list[tuple[Any, Any]], read: Callable[[Any], Any], own: _OwnLabels
) -> list[tuple[Any, Any]]:
    """The samples of mappings from values of the own labels to numbers."""
    try:
        return [
            (labels + own[key], value)
            for labels, owner in owners
            for key, value in read(owner).items()
        ]
    except UnicodeError:  # keys with surrogates: two may become one
        return [
            (labels + own[key], value)
            for labels, owner in owners
            for key, value in _clean_keys(read(owner)).items()
        ]


class _OwnLabels(dict[Any, Any]):
    """
    Value of the own label, or a tuple of values -> encoded labels.

    Raises:
        UnicodeError: A value has a lone surrogate.
    """

    def __init__(
        self, keys: tuple[str, ...], encode: Callable[[Labels], object]
    ) -> None:
        self._keys = keys
        self._encode = encode

    def __missing__(self, key: str | tuple[str, ...]) -> object:
        values = (key,) if isinstance(key, str) else key
        pairs = tuple(
            pair for pair in zip(self._keys, values, strict=True) if pair[1] is not None
        )
        if any(valid(value) != value for _, value in pairs):
            raise UnicodeError(f"{key!r} has a lone surrogate")
        labels = self[key] = self._encode(pairs)
        return labels


def _clean_keys(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Valid keys; counts whose keys differ in nothing but surrogates are added up."""
    cleaned: dict[str, int] = {}
    for key, count in counts.items():
        cleaned[valid(key)] = cleaned.get(valid(key), 0) + count
    return cleaned


def _by_clean_name(owners: Mapping[str, Any]) -> dict[str, Any]:
    """By valid name; two whose names differ in nothing but surrogates become one."""
    by_name: dict[str, Any] = {}
    for raw_name, owner in owners.items():
        name = valid(raw_name)
        there = by_name.get(name)
        by_name[name] = owner if there is None else there.merge(owner)
    return by_name


def version() -> str:
    """Version of this package."""
    return __version__
