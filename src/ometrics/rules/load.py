# SPDX-License-Identifier: MIT
"""Rules from a TOML file: what is wrong is refused with file, line and nearest name.

    [[rule]]
    name = "slow answers"
    metric = "latency.p95"
    above = "2s"
    over = "5m"
    for = "1m"

    [[objective]]
    name = "first chunk"
    metric = "time_to_first_chunk"
    within = "500ms"
    target = 0.99

    [stalls]
    chunk = "10s"

    [[notify]]
    webhook = "https://alerts.example/ometrics"

The keys of a table are the fields of `Rule`, `Objective`, `Stalls`, and what
`ometrics.rules.receivers` takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeAlias

from ometrics.rules.engine import Engine
from ometrics.rules.quantities import nearest
from ometrics.rules.receivers import Receiver, receiver_of
from ometrics.rules.rule import Objective, Rule, RuleError
from ometrics.rules.stalls import Stalls

_MAX_BYTES: Final = 1 << 20
_AT_LINE: Final = re.compile(r"at line (\d+)")
_HEADER: Final = re.compile(r"\s*\[\[?\s*([\w-]+)\s*\]\]?")
_SECTIONS: Final = {
    "rule": "[[rule]]",
    "objective": "[[objective]]",
    "notify": "[[notify]]",
    "stalls": "[stalls]",
}

Table: TypeAlias = Mapping[str, Any]


class RulesFileError(ValueError):
    """A file of rules that cannot be used; the message begins with `file:line: `."""


@dataclasses.dataclass(frozen=True)
class RuleSet:
    """
    What a file of rules says.

    Attributes:
        rules: Its rules and objectives, in the order of the file's sections.
        notify: Who is told: a receiver for each `[[notify]]`.
        stalls: Limits for calls in flight, if there is a table `[stalls]`.
    """

    rules: tuple[Rule | Objective, ...]
    notify: tuple[Receiver, ...] = ()
    stalls: Stalls | None = None


def load(path: str | os.PathLike[str]) -> RuleSet:
    """
    Read a file of rules.

    Raises:
        OSError: It cannot be read.
        RulesFileError: It says something that cannot be meant.
        ImportError: Python 3.10 without `tomli`; the message names the extra.
    """
    with Path(path).open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise RulesFileError(f"{os.fspath(path)}: larger than {_MAX_BYTES:,} bytes")
    return loads(data.decode("utf-8", "replace"), name=os.fspath(path))


def defaults() -> RuleSet:
    """Rules that suit most agents; what `--rules default` means."""
    file = resources.files("ometrics.rules") / "default.toml"
    return loads(file.read_text(encoding="utf-8"), name="default")


def loads(text: str, *, name: str = "<rules>") -> RuleSet:
    """
    Read rules from text.

    Args:
        text: TOML.
        name: What messages call it.

    Raises:
        RulesFileError: It says something that cannot be meant.
        ImportError: Python 3.10 without `tomli`; the message names the extra.
    """
    document = _Document(text, name)
    rules: list[Rule | Objective] = []
    seen: dict[str, int | None] = {}
    for section, kind in (("rule", Rule), ("objective", Objective)):
        for index, table in enumerate(document.tables(section)):
            rule = _made(kind, table, document, section, index)
            line = document.line(section, index, "name")
            if rule.name in seen:
                first = seen[rule.name]
                where = f" on line {first}" if first else ""
                raise document.error(
                    f"the name {rule.name!r} is taken{where}; names must be unique",
                    line,
                )
            seen[rule.name] = line
            rules.append(rule)
    notify = tuple(
        _receiver(table, document, index)
        for index, table in enumerate(document.tables("notify"))
    )
    stalls = _stalls(document)
    if not rules and stalls is None:
        raise document.error("no [[rule]], no [[objective]] and no [stalls]", None)
    Engine(rules)  # the names of what objectives become are unique as well
    return RuleSet(tuple(rules), notify, stalls)


def _stalls(document: _Document) -> Stalls | None:
    tables = document.tables("stalls")
    if not tables:
        return None
    _check_keys(Stalls, tables[0], document, "stalls", 0)
    # TOML has no null: `false` turns a limit off.
    off = {key: None for key, value in tables[0].items() if value is False}
    try:
        return Stalls(**{**tables[0], **off})
    except RuleError as error:
        line = document.line("stalls", 0, error.field)
        raise document.error(str(error), line) from None


def _receiver(table: Table, document: _Document, index: int) -> Receiver:
    try:
        return receiver_of(table)
    except ValueError as error:
        raise document.error(str(error), document.line("notify", index, "")) from None


def _made(
    kind: type[Rule | Objective],
    table: Table,
    document: _Document,
    section: str,
    index: int,
) -> Rule | Objective:
    fields = _check_keys(kind, table, document, section, index)
    if "name" not in table or (kind is Rule and "metric" not in table):
        lacks = "name" if "name" not in table else "metric"
        raise document.error(
            f"this {section} has no {lacks!r}", document.line(section, index, "")
        )
    try:
        return kind(**{fields[key]: value for key, value in table.items()})
    except RuleError as error:
        line = document.line(section, index, error.field)
        raise document.error(str(error), line) from None


def _check_keys(
    kind: type[Rule | Objective | Stalls],
    table: Table,
    document: _Document,
    section: str,
    index: int,
) -> dict[str, str]:
    """Refuse keys that are no fields; the fields by key."""
    fields = {field.name.rstrip("_"): field.name for field in dataclasses.fields(kind)}
    for key in table:
        if key not in fields:
            near = nearest(key, fields)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {list(fields)}"
            raise document.error(
                f"a {section} has no {key!r}; {hint}",
                document.line(section, index, key),
            )
    return fields


class _Document:
    """
    A parsed file that still knows its lines.

    The parser of the standard library keeps no positions, so headers are counted in the
    text. Should the count not be the parser's, as in a file that has a header inside a
    string, messages go without a line rather than with a wrong one.
    """

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        toml = _parser()
        try:
            self._parsed: dict[str, Any] = toml.loads(text)
        except toml.TOMLDecodeError as error:
            at = _AT_LINE.search(str(error))
            where = f"{name}:{at[1]}" if at else name
            raise RulesFileError(f"{where}: not TOML: {error}") from None
        self._lines = text.splitlines()
        self._headers: dict[str, list[int]] = {}
        for number, line in enumerate(self._lines):
            if match := _HEADER.match(line):
                self._headers.setdefault(match[1], []).append(number)
        for section in self._parsed:
            if section not in _SECTIONS:
                near = nearest(section, _SECTIONS)
                hint = f"did you mean {_SECTIONS[near[0]]}?" if near else "see the docs"
                headers = self._headers.get(section)
                raise self.error(
                    f"there is no section {section!r}; {hint}",
                    headers[0] + 1 if headers else None,
                )

    def tables(self, section: str) -> Sequence[Table]:
        """All tables of one kind."""
        tables = self._parsed.get(section, [])
        if section == "stalls":
            if tables and not isinstance(tables, dict):
                raise self.error("write [stalls], with one bracket, once", None)
            return [tables] if section in self._parsed else []
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            raise self.error(f"write [[{section}]] with two brackets", None)
        return tables

    def line(self, section: str, index: int, key: str) -> int | None:
        """Number of the line of a key, or of its table; `None` if that is not sure."""
        headers = self._headers.get(section, [])
        if len(headers) != len(self.tables(section)):
            return None
        begin = headers[index]
        if not key:
            return begin + 1
        assignment = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
        for number in range(begin + 1, len(self._lines)):
            if _HEADER.match(self._lines[number]):
                break
            if assignment.match(self._lines[number]):
                return number + 1
        return begin + 1

    def error(self, message: str, line: int | None) -> RulesFileError:
        """An error that says where."""
        where = f"{self._name}:{line}" if line else self._name
        return RulesFileError(f"{where}: {message}")


def _parser() -> Any:
    """The standard library's parser, or the package it came from for Python 3.10."""
    for module in ("tomllib", "tomli"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(module)
    raise ImportError(
        "files of rules need a package: pip install 'ollama-metrics[rules]'"
    )
