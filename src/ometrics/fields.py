# SPDX-License-Identifier: MIT
"""How a number is declared: once, where the read type has it.

    prompt_tokens: Annotated[
        int | None,
        Counter("Prompt tokens.", INPUT_TOKENS, known_by="prompt_tokens_known"),
    ] = None

The annotation is a `Field`: what the number means, how two of it merge and subtract,
and the `Metric` under which it leaves the process. All else follows from it: the places
in the core's C record (`_fields.pxd`, written by `tools/generate.py`), reading, `merge`
and `delta`, JSON and its schema, Prometheus, OTLP, the store's columns, the
documentation. Adding a counter is its declaration in `snapshot.py`, the place that
counts it, and its test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, reduce
from typing import Any, Final, Literal, NoReturn, TypeAlias, TypeVar, get_type_hints

import msgspec
from msgspec.structs import replace

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info"]

Owner = TypeVar("Owner")

UINT64_MAX: Final = 2**64 - 1


class Metric(msgspec.Struct, frozen=True):
    """
    What leaves the process under one name; several fields may be its parts.

    Attributes:
        name: OpenTelemetry name, with dots.
        unit: UCUM: `s`, `By`, `1`, `{things}`, or empty.
        help: One sentence for people; empty for that of its only field.
        bounds: Explicit bounds of a histogram; `None` for the user's own.
    """

    name: str
    unit: str
    help: str = ""
    bounds: tuple[float, ...] | None = None


class Field(msgspec.Struct, frozen=True):
    """
    The declaration of one number; use one of its kinds.

    Attributes:
        help: What it is, in one sentence; part of the read type's docstring.
        metric: Under what name it is exported; `None` if it is not.
        labels: The metric's labels that make this field one of its parts.
        by: Of a mapping: the label that its keys are values of.
        convert: Value -> the same in the metric's unit, where that is another.
        stored: Whether the core counts it; else it is computed when read.
        title: Its name in tables, where that is not `name` with spaces.
        name: The attribute; filled in by `fields_of`.
    """

    help: str
    metric: Metric | None = None
    labels: Mapping[str, str] = {}
    by: str | None = None
    convert: Callable[[Any], float] | None = None
    stored: bool = True
    title: str = ""
    name: str = ""

    @property
    def kind(self) -> Kind:
        """What the metric is in a monitoring system."""
        return "gauge"

    def merge(self, owners: Sequence[Any]) -> Any:
        """The field of all owners, at least one, together."""
        raise NotImplementedError

    def delta(self, later: Any, earlier: Any) -> Any:
        """The field of what came between two states of one owner."""
        raise NotImplementedError

    def of(self, owner: Any) -> Any:
        """This field of an owner."""
        return getattr(owner, self.name)

    def known(self, owners: Sequence[Any]) -> list[Any]:
        """This field of those owners that know it."""
        name = self.name
        values = [getattr(owner, name) for owner in owners]
        return [value for value in values if value is not None]


class ReadOnlyDict(dict[str, Any]):
    """A dictionary of a read type: what was read does not change."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("what a snapshot has read does not change; copy it with dict()")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = _refuse
    __ior__ = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return type(self), (dict(self),)


NO_ITEMS: Final = ReadOnlyDict()


def since_1970(time: datetime) -> float:
    """A time as seconds since 1970."""
    return time.timestamp()


def seconds_of_ns(ns: int) -> float:
    """Nanoseconds in seconds."""
    return ns / 1e9


def percentage(part: int, whole: int) -> float:
    """`part` of `whole` in percent; 0.0 of nothing."""
    return 100.0 * part / whole if whole else 0.0


def total(counts: Iterable[int]) -> int:
    """A sum that stops at 2^64 - 1, as the core's do."""
    return min(sum(counts), UINT64_MAX)


def subtract(name: str, later: int, earlier: int) -> int:
    """
    What a counter gained.

    Raises:
        ValueError: It went back, so these are not two states of one owner.
    """
    if later < earlier:
        raise ValueError(
            f"not an earlier snapshot of the same start: {name} went back"
            f" from {earlier} to {later}"
        )
    return later - earlier


class Counter(Field, frozen=True):
    """
    An integer that only grows; sums of both owners, differences in time.

    Attributes:
        known_by: The counter of calls that gave this number; `None` for a number that
            is always known. While that is 0 the value is `None`: unknown is not 0.
    """

    known_by: str | None = None

    @property
    def kind(self) -> Kind:
        """A counter."""
        return "counter"

    def merge(self, owners: Sequence[Any]) -> int | None:
        """The sum of what is known."""
        known = self.known(owners)
        return total(known) if known else None

    def delta(self, later: Any, earlier: Any) -> int | None:
        """What came in between; unknown if nobody gave it since."""
        now: int | None = self.of(later)
        if now is None:
            return None
        gained = subtract(self.name, now, self.of(earlier) or 0)
        if self.known_by is not None and getattr(later, self.known_by) == getattr(
            earlier, self.known_by
        ):
            return None
        return gained


class Counts(Field, frozen=True):
    """A mapping of names to counters."""

    @property
    def kind(self) -> Kind:
        """Counters, by label."""
        return "counter"

    def merge(self, owners: Sequence[Any]) -> dict[str, int]:
        """The sums by name."""
        counted: list[dict[str, int]] = [self.of(owner) for owner in owners]
        counted = [counts for counts in counted if counts] or counted[:1]
        if len(counted) == 1:
            return counted[0]
        names = dict.fromkeys(name for counts in counted for name in counts)
        return ReadOnlyDict(
            {name: total(c.get(name, 0) for c in counted) for name in names}
        )

    def delta(self, later: Any, earlier: Any) -> dict[str, int]:
        """The differences by name; what did not grow is left out."""
        now, before = self.of(later), self.of(earlier)
        missing = before.keys() - now.keys()
        if any(before[key] for key in missing):
            raise ValueError(
                f"not an earlier snapshot: {self.name} lost {sorted(missing)}"
            )
        gained = {
            key: subtract(f"{self.name}[{key!r}]", count, before.get(key, 0))
            for key, count in now.items()
        }
        return ReadOnlyDict({key: count for key, count in gained.items() if count})


class Distribution(Field, frozen=True):
    """
    A set of values; both sets together, or those that came in between.

    Attributes:
        always: Whether an empty one is exported: it says 0, not "unknown".
    """

    always: bool = False

    @property
    def kind(self) -> Kind:
        """A histogram."""
        return "histogram"

    def merge(self, owners: Sequence[Any]) -> Any:
        """The values of all."""
        first, *others = self.known(owners)
        return first.merge(*others)

    def delta(self, later: Any, earlier: Any) -> Any:
        """The values that came in between."""
        return self.of(later) - self.of(earlier)


class Gauge(Field, frozen=True):
    """
    A state of now: the later one counts.

    Attributes:
        combine: What becomes of those of two owners that both know theirs.
    """

    combine: Callable[[Any, Any], Any] = max
    stored: bool = False

    def merge(self, owners: Sequence[Any]) -> Any:
        """What `combine` makes of those that are known."""
        known = self.known(owners)
        return reduce(self.combine, known) if known else None

    def delta(self, later: Any, earlier: Any) -> Any:  # noqa: ARG002
        """As it is later."""
        return self.of(later)


class OfLargest(Gauge, frozen=True):
    """
    What belongs to another gauge: of several owners, to the largest of that.

    Attributes:
        gauge: The other one.
    """

    gauge: str = ""

    def merge(self, owners: Sequence[Any]) -> Any:
        """That of the owner whose gauge is the largest."""
        sizes = [(getattr(owner, self.gauge), self.of(owner)) for owner in owners]
        known = [(size, value) for size, value in sizes if size is not None]
        # Of two that are as large: the larger one, so that no order matters.
        _, value = max(known, key=_in_order, default=(None, None))
        return value


def _in_order(pair: tuple[float, float | None]) -> tuple[float, float]:
    size, value = pair
    return size, float("-inf") if value is None else value


class Extreme(Field, frozen=True):
    """
    The smallest or largest of values that are kept nowhere else.

    Attributes:
        choose: `min` or `max`.
        count: The owner's number of such values.
    """

    choose: Callable[[Any, Any], Any] = min
    count: str = ""
    stored: bool = False

    def merge(self, owners: Sequence[Any]) -> Any:
        """The extreme of all; `None` if one has values and does not know its own."""
        extremes = [self.of(owner) for owner in owners if getattr(owner, self.count)]
        if not extremes or None in extremes:
            return None
        return reduce(self.choose, extremes)

    def delta(self, later: Any, earlier: Any) -> Any:
        """The later one, where it must belong to what came in between."""
        gained = getattr(later, self.count) - getattr(earlier, self.count)
        now = self.of(later)
        return now if gained and now != self.of(earlier) else None


class Same(Field, frozen=True):
    """A name, equal in both owners."""

    stored: bool = False

    def merge(self, owners: Sequence[Any]) -> Any:
        """The name."""
        return self.of(owners[0])

    def delta(self, later: Any, earlier: Any) -> Any:  # noqa: ARG002
        """The name."""
        return self.of(later)


class Info(Same, frozen=True):
    """Which instance; of several, the distinct ones, sorted and joined by `+`."""

    @property
    def kind(self) -> Kind:
        """The content is in the labels."""
        return "info"

    def merge(self, owners: Sequence[Any]) -> str:
        """All identities."""
        ids = {name for owner in owners for name in self.of(owner).split("+")}
        return "+".join(sorted(ids))


class Elapsed(Field, frozen=True):
    """Seconds that were counted: the longest of several, the difference in time."""

    stored: bool = False

    def merge(self, owners: Sequence[Any]) -> float:
        """The longest one."""
        seconds: float = max(self.known(owners))
        return seconds

    def delta(self, later: Any, earlier: Any) -> float:
        """The time in between."""
        seconds: float = max(self.of(later) - self.of(earlier), 0.0)
        return seconds


class Part(Field, frozen=True):
    """Another read type, or `None` before there was anything."""

    stored: bool = False

    def merge(self, owners: Sequence[Any]) -> Any:
        """All parts together."""
        parts = self.known(owners)
        return parts[0].merge(*parts[1:]) if parts else None

    def delta(self, later: Any, earlier: Any) -> Any:
        """What the part gained."""
        now, before = self.of(later), self.of(earlier)
        return now if now is None or before is None else now - before


class Members(Part, frozen=True):
    """A mapping of names to read types; members of the same name belong together."""

    def merge(self, owners: Sequence[Any]) -> dict[str, Any]:
        """All members of all, those of the same name merged."""
        members: dict[str, list[Any]] = {}
        for owner in owners:
            for name, member in self.of(owner).items():
                members.setdefault(name, []).append(member)
        return ReadOnlyDict(
            {name: same[0].merge(*same[1:]) for name, same in members.items()}
        )

    def delta(self, later: Any, earlier: Any) -> dict[str, Any]:
        """What each member gained; one that is gone is left out."""
        before = self.of(earlier)
        return ReadOnlyDict(
            {
                name: now if name not in before else now - before[name]
                for name, now in self.of(later).items()
            }
        )


@lru_cache(maxsize=64)
def fields_of(owner: type) -> tuple[Field, ...]:
    """
    The declared fields of a read type, in their order; computed ones come last.

    A computed field is a property whose return type is annotated with a `Field`.
    """
    hints = get_type_hints(owner, include_extras=True)
    declared = [_named(name, hint) for name, hint in hints.items()]
    for base in reversed(owner.__mro__):
        for name, member in vars(base).items():
            if isinstance(member, property) and member.fget is not None:
                hints = get_type_hints(member.fget, include_extras=True)
                declared.append(_named(name, hints.get("return")))
    return tuple(field for field in declared if field is not None)


def _named(name: str, hint: object) -> Field | None:
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, Field):
            return replace(extra, name=name)
    return None


@lru_cache(maxsize=64)
def _combined(owner: type) -> tuple[Field, ...]:
    """The fields that an owner is made of: the computed ones follow from these."""
    made_of = set(owner.__struct_fields__)  # type: ignore[attr-defined]
    return tuple(field for field in fields_of(owner) if field.name in made_of)


def merge(owners: Sequence[Owner], **given: Any) -> Owner:
    """
    Owners of one read type as one, field by field.

    Args:
        owners: At least one; of one, it is itself.
        given: Fields that the caller has made.
    """
    if len(owners) == 1 and not given:
        return owners[0]
    owner: Any = type(owners[0])
    for field in _combined(owner):
        if field.name not in given:
            given[field.name] = field.merge(owners)
    result: Owner = owner(**given)
    return result


def delta(later: Owner, earlier: Owner, **given: Any) -> Owner:
    """
    What came between two states of one owner, field by field.

    Raises:
        ValueError: A count went back: `earlier` is no earlier state of the same owner.
    """
    owner: Any = type(later)
    for field in _combined(owner):
        if field.name not in given:
            given[field.name] = field.delta(later, earlier)
    result: Owner = owner(**given)
    return result


def stored(owner: type, kind: type[Field]) -> tuple[str, ...]:
    """Names of the fields of one kind that the core keeps, in its order."""
    return tuple(
        field.name
        for field in _combined(owner)
        if field.stored and isinstance(field, kind)
    )


def document(*owners: type) -> None:
    """Append the declared fields to the docstrings of read types."""
    for owner in owners:
        if owner.__doc__ is not None:  # else Python runs with -OO
            lines = [f"        {f.name}: {f.help}" for f in _combined(owner)]
            text = owner.__doc__.rstrip()
            owner.__doc__ = "\n".join([text, "", "    Attributes:", *lines, ""])
