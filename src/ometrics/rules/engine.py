# SPDX-License-Identifier: MIT
"""The state machine of incidents: windows in, alerts out; no clock, thread or file.

The order of events is that of a Prometheus alert with `for` and `keep_firing_for`, so
that `ometrics.rules.prometheus` can say the same in its language:

    ok --past the limit--> pending --for `for_`--> firing --clear for `clear_for`--> ok

What is not known breaks a pending incident, and neither ends a firing one nor lets the
time until its end run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from ometrics.events import StalledCall
from ometrics.rules.conditions import (
    NO_MODEL,
    Column,
    Condition,
    EvaluatedWindows,
    Window,
    conditions_of,
    removed,
)
from ometrics.rules.rule import Objective, Rule

Phase: TypeAlias = Literal["ok", "pending", "firing", "missing"]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """
    An incident began or ended.

    Attributes:
        id: The same for both, and different for every incident.
        rule: Name of the rule or objective.
        model: Whose; empty if it is no model's.
        state: `firing` or `resolved`.
        severity: `info`, `warning` or `critical`.
        metric: What is watched.
        unit: Of value and limit: `s`, `ms`, `%`, `MB`, `1/s`, `tokens/s` or empty.
        value: The number at this moment; `None` where a removed rule ended it.
        limit: What the number must not be past.
        rises: Whether too high is wrong, rather than too low.
        began: When the number went past the limit (UTC).
        at: When the incident began to fire or ended (UTC).
        call: Of a stall, the call in flight.
    """

    id: str
    rule: str
    model: str
    state: Literal["firing", "resolved"]
    severity: str
    metric: str
    unit: str
    value: float | None
    limit: float
    rises: bool
    began: datetime
    at: datetime
    call: StalledCall | None = None


class RuleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where one rule stands with one model.

    Attributes:
        rule: Name of the rule or objective.
        model: Whose number; empty if it is no model's.
        phase: `ok`, `pending`, `firing`, or `missing` while nothing is known.
        value: The number; `None` if missing.
        missing: Whether nothing is known, also while an incident goes on.
    """

    rule: str
    model: str
    phase: Phase
    value: float | None
    missing: bool


class Incident(msgspec.Struct):
    """
    What is remembered of a number that is, or was, past its limit.

    Attributes:
        began: When it went past, by the engine's clock.
        fired: Whether that was long enough ago.
        ended: Whether it has been good again for long enough.
        clear_since: Since when it has been good again; `None` if it is not.
        began_at: `began` by the wall clock (UTC).
        missing: Whether nothing is known at the moment.
    """

    began: float
    began_at: datetime
    fired: bool = False
    ended: bool = False
    clear_since: float | None = None
    missing: bool = False


class Engine:
    """
    Decides over and over which incidents there are.

    Args:
        rules: Rules and objectives, with unique names.
        conditions: More to watch, beside what follows from the rules.

    Raises:
        ValueError: Two have the same name.

    Thread-safety:
        For one thread.
    """

    def __init__(
        self,
        rules: Iterable[Rule | Objective],
        conditions: Iterable[Condition] = (),
    ) -> None:
        self.rules = tuple(rules)
        conditions = [c for rule in self.rules for c in conditions_of(rule)] + [
            *conditions
        ]
        self._conditions: dict[str, Condition] = {c.name: c for c in conditions}
        if len(self._conditions) < len(conditions):
            names = [c.name for c in conditions]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two rules are named {twice!r}; names must be unique")
        self._incidents: dict[str, dict[str, Incident]] = {
            name: {} for name in self._conditions
        }
        self._orphans: list[tuple[str, str, Incident]] = []
        self._columns: Mapping[str, Column] = {}
        # Of the last evaluation.
        self.now = float("-inf")

    def evaluate(self, window: Window, *, now: float, at: datetime) -> list[Alert]:
        """
        Look at every number once.

        Args:
            window: Gives what was counted in the last so many seconds.
            now: Seconds of a clock that does not go back.
            at: The same instant for people (UTC).

        Returns:
            What began to fire and what ended, in the order of the rules.

        Raises:
            Exception: What `window` raised; no incident has changed.
        """
        windows = EvaluatedWindows(window)
        # All reading comes first: should it raise, no incident has changed.
        columns = {
            name: condition.read(windows)
            for name, condition in self._conditions.items()
        }
        self.now = now = max(now, self.now)
        alerts = [
            _alert(removed(name), model, incident, None, at)
            for name, model, incident in self._orphans
        ]
        self._orphans.clear()
        self._columns = columns
        for name, condition in self._conditions.items():
            alerts += self._step(condition, columns[name], now, at)
        return alerts

    def _step(
        self, condition: Condition, column: Column, now: float, at: datetime
    ) -> Iterator[Alert]:
        """One rule's incidents, one evaluation on."""
        incidents = self._incidents[condition.name]
        past = condition.past(column)
        for model in past.keys() - incidents.keys():
            incidents[model] = Incident(began=now, began_at=at)
        if not incidents:
            return
        for model, incident in sorted(incidents.items()):
            value = column.get(model)
            incident.missing = value is None
            if not incident.fired:
                if model not in past:
                    del incidents[model]
                elif now - incident.began >= condition.hold:
                    incident.fired = True
                    yield _alert(condition, model, incident, value, at)
            elif value is None or not condition.is_clear(value):
                incident.clear_since = None
            else:
                if incident.clear_since is None:
                    incident.clear_since = now
                if now - incident.clear_since >= condition.clear_hold:
                    del incidents[model]
                    incident.ended = True
                    yield _alert(condition, model, incident, value, at)

    def statuses(self) -> list[RuleStatus]:
        """Where every rule stood with every model at the last evaluation."""
        found = []
        for name, column in self._columns.items():
            incidents = self._incidents[name]
            for model in sorted(column.keys() | incidents.keys()):
                value, incident = column.get(model), incidents.get(model)
                phase: Phase = "ok" if value is not None else "missing"
                if incident is not None:
                    phase = "firing" if incident.fired else "pending"
                found.append(
                    RuleStatus(
                        rule=name,
                        model=model,
                        phase=phase,
                        value=value,
                        missing=value is None,
                    )
                )
            if not column and not incidents:
                found.append(
                    RuleStatus(
                        rule=name,
                        model=NO_MODEL,
                        phase="missing",
                        value=None,
                        missing=True,
                    )
                )
        return found

    def active(self) -> list[Alert]:
        """Incidents that fire, as of the last evaluation."""
        return [
            _alert(
                condition,
                model,
                incident,
                self._columns.get(name, {}).get(model),
                incident.began_at,
            )
            for name, condition in self._conditions.items()
            for model, incident in sorted(self._incidents[name].items())
            if incident.fired
        ]

    def state(self) -> dict[str, Any]:
        """
        All that must outlive a restart, as plain JSON types.

        Times are ages at the last evaluation: a clock that does not go back starts
        anew in each process.
        """
        return {
            "version": 1,
            "incidents": [
                {
                    "rule": name,
                    "model": model,
                    "age": self.now - incident.began,
                    "began_at": incident.began_at.isoformat(),
                    "fired": incident.fired,
                    "clear_age": (
                        None
                        if incident.clear_since is None
                        else self.now - incident.clear_since
                    ),
                }
                for name, incidents in self._incidents.items()
                for model, incident in incidents.items()
            ],
        }

    def restore(self, state: Mapping[str, Any], *, now: float) -> None:
        """
        Go on from what `state()` gave.

        Incidents of rules that are gone end at the next evaluation.

        Args:
            state: As it was.
            now: What the clock would show, had it gone on since: the present time less
                the seconds that passed in between.

        Raises:
            ValueError: It is no such state.
        """
        try:
            saved = msgspec.convert(state, _RuleState)
        except msgspec.ValidationError as error:
            raise ValueError(f"no state of rules: {error}") from None
        for row in saved.incidents:
            incident = Incident(
                began=now - row.age,
                began_at=row.began_at,
                fired=row.fired,
                clear_since=None if row.clear_age is None else now - row.clear_age,
            )
            if row.rule in self._incidents:
                self._incidents[row.rule][row.model] = incident
            elif row.fired:
                incident.ended = True
                self._orphans.append((row.rule, row.model, incident))


def _alert(
    condition: Condition,
    model: str,
    incident: Incident,
    value: float | None,
    at: datetime,
) -> Alert:
    began = incident.began_at
    identity = msgspec.json.encode([condition.name, model, began])
    return Alert(
        id=hashlib.sha256(identity).hexdigest()[:32],
        rule=condition.name,
        model=model,
        state="resolved" if incident.ended else "firing",
        severity=condition.severity,
        metric=condition.metric,
        unit=condition.unit,
        value=value,
        limit=condition.limit,
        rises=condition.rises,
        began=began,
        at=at,
        call=condition.call(model),
    )


class _SavedIncident(msgspec.Struct):
    rule: str
    model: str
    age: float
    began_at: datetime
    fired: bool
    clear_age: float | None


class _RuleState(msgspec.Struct):
    version: Literal[1]
    incidents: list[_SavedIncident]
