# SPDX-License-Identifier: MIT
"""The package is built as ARCHITECTURE.md says: who imports whom, and long files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ometrics"
ROW = re.compile(r"^\| (\w+) \| ((?:`\w+` ?)+)\| ([\w ]*)\|$", re.MULTILINE)
# A Cython file's Python imports; cimports are the C compiler's business.
CYTHON_IMPORT = re.compile(r"^( *)from (ometrics[\w.]*) import (\w+)", re.MULTILINE)

# Calls into rooms above, made when first used: a user finds them where the data is.
UPWARD = {
    ("collector", "export.json"),  # export_json_to_file()
    ("collector", "gpu_sampling"),  # sample_gpus()
    ("collector", "ollama.polling"),  # poll_ollama()
    ("collector", "resources"),  # sample_resources()
    ("collector", "responses"),  # record_response()
    ("collector", "serve"),  # serve()
    ("collector", "rules"),  # watch()
    ("collector", "rules.receivers"),  # watch()
    ("collector", "rules.watch"),  # watch()
    ("collector", "store"),  # keep()
    ("collector", "view.summary"),  # get_summary()
    ("snapshot", "export.json"),  # to_json(), from_json()
    ("sources", "segments"),  # read() of a directory
    # How the read types show themselves: one line, and as HTML in a notebook.
    ("histogram", "view.html"),
    ("histogram", "view.lines"),
    ("models", "view.html"),
    ("models", "view.lines"),
    ("snapshot", "view.html"),
    ("snapshot", "view.lines"),
}

MOST_LINES = 500
# What is longer, how long it may be, and why it is one idea nevertheless.
LONG_FILES = {
    "_calls.pyx": (680, "the life of one call, whose parts share its C fields"),
    "_histogram.pyx": (650, "all arithmetic over cells"),
    "_json.pyx": (680, "the bytes of one format"),
    "_reading.pyx": (550, "the core's records become read types, in one pass"),
    "_table.pyx": (650, "slots, which names, codes and memory all hang on"),
    "collector.py": (680, "the public face: short methods, long docstrings"),
    "models.py": (630, "the declarations of one model's numbers"),
}

pytestmark = pytest.mark.skipif(
    not SOURCE.exists(),
    reason="the source tree is not here: testing an installed wheel",
)


class Import(NamedTuple):
    """One module's import of another, by their names within the package."""

    importer: str
    imported: str
    is_deferred: bool


def name_of(path: Path) -> str:
    """A module's name within the package; the package itself is empty."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    """Every module of the package."""
    return {
        name_of(path): path
        for pattern in ("*.py", "*.pyx")
        for path in sorted(SOURCE.rglob(pattern))
    }


def statements(
    node: ast.AST, *, is_deferred: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Each import that is run, and whether in a function only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, is_deferred
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from statements(child, is_deferred=is_deferred or is_function)


def targets(
    statement: ast.Import | ast.ImportFrom, importer: str, path: Path
) -> Iterator[str]:
    """The full names that a statement may mean."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    base = statement.module or ""
    if statement.level:
        inside = ["ometrics", *importer.split(".")]
        up = statement.level - (path.name == "__init__.py")
        base = ".".join([*inside[: len(inside) - up], *filter(None, [base])])
    for alias in statement.names:
        if (base, alias.name) != ("ometrics", "__version__"):
            yield f"{base}.{alias.name}"


def imports() -> list[Import]:
    """The graph, once for each pair and kind."""
    known = modules()
    found = set()

    def add(importer: str, full_name: str, is_deferred: bool) -> None:
        package, _, name = full_name.partition(".")
        if package == "ometrics":
            while name and name not in known:  # a name inside of a module
                name = name.rpartition(".")[0]
            found.add(Import(importer, name, is_deferred))

    for importer, path in known.items():
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".pyx":
            for indent, home, name in CYTHON_IMPORT.findall(text):
                add(importer, f"{home}.{name}", bool(indent))
            continue
        for statement, is_deferred in statements(ast.parse(text)):
            for name in targets(statement, importer, path):
                add(importer, name, is_deferred)
    return sorted(found)


def groups() -> tuple[dict[str, str], dict[str, set[str]]]:
    """The page's table: the group of each room, and what each group may import."""
    rows = ROW.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    members = {
        room: group for group, rooms, _ in rows for room in re.findall(r"\w+", rooms)
    }
    return members, {group: {group, *allowed.split()} for group, _, allowed in rows}


def test_every_module_has_a_group() -> None:
    """A new room is written into the page."""
    members, _ = groups()
    outside = {"", "__main__", "_lazy"}
    rooms = {name.partition(".")[0] for name in modules()} - outside

    assert set() == rooms - members.keys()


def test_groups_import_only_what_the_page_allows() -> None:
    """Nothing below the waist is imported from above it, nor any room sideways."""
    members, allowed = groups()
    wrong = []
    for importer, imported, _ in imports():
        if importer in {"", "__main__"} or imported == "_lazy":
            continue
        group = members[importer.partition(".")[0]]
        other = members.get(imported.partition(".")[0], "top")
        if (importer, imported) not in UPWARD and other not in allowed[group]:
            wrong.append(f"{importer} ({group}) imports {imported or 'ometrics'}")

    assert [] == wrong


def test_private_modules_stay_in_their_room() -> None:
    """A module whose name begins with `_` is imported by its own group only."""
    members, _ = groups()
    wrong = []
    for importer, imported, _ in imports():
        home, _, leaf = imported.rpartition(".")
        room = imported.partition(".")[0]
        if not leaf.startswith("_") or importer == "" or imported == "_lazy":
            continue
        owner = home or members[room]
        mine = importer if home else members[importer.partition(".")[0]]
        # The core's compiled modules serve all that records or reads it.
        is_core = not home and owner in {"core", "waist"}
        if not is_core and not f"{mine}.".startswith(f"{owner}."):
            wrong.append(f"{importer} imports {imported}")

    assert [] == wrong


def test_no_circle() -> None:
    """No modules import each other, not even when first used, but for the listed."""
    graph: dict[str, set[str]] = {}
    for importer, imported, _ in imports():
        if importer and imported and (importer, imported) not in UPWARD:
            graph.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_upward_calls_are_deferred() -> None:
    """The listed ones exist, and only inside of functions."""
    found = {(i.importer, i.imported): i.is_deferred for i in imports()}

    assert dict.fromkeys(UPWARD, True) == {
        edge: found.get(edge, "no such import") for edge in UPWARD
    }


def test_the_demo_is_needed_by_its_command_only() -> None:
    """Nothing that users import needs the demo or the command."""
    needed = {
        importer
        for importer, imported, _ in imports()
        if imported.partition(".")[0] == "demo" != importer.partition(".")[0]
    }

    assert {"cli.demo"} == needed


def test_files_are_short() -> None:
    """A file of over 500 lines has one idea, and its reason is in the list above."""
    lengths = {
        str(path.relative_to(SOURCE).as_posix()): len(path.read_bytes().splitlines())
        for pattern in ("*.py", "*.pyx", "*.pxd", "*.pyi", "*.h")
        for path in SOURCE.rglob(pattern)
    }
    allowed = {name: lines for name, (lines, _) in LONG_FILES.items()}

    assert {} == {
        name: lines
        for name, lines in lengths.items()
        if lines > allowed.get(name, MOST_LINES)
    }
    assert {} == {  # an exception that is no longer needed goes
        name: lengths[name] for name in allowed if lengths[name] <= MOST_LINES
    }


def test_no_two_classes_have_one_name() -> None:
    """Whoever reads `Server` in a traceback knows which; private words aside."""
    kinds = "testing", "fields"  # whose words are for scripts, and for declarations
    where: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py*")):
        if path.suffix not in {".py", ".pyx"}:
            continue
        module = path.relative_to(SOURCE).with_suffix("")
        for name in re.findall(
            r"^(?:cdef )?class ([A-Za-z]\w*)", path.read_text(), re.MULTILINE
        ):
            if module.parts[0] not in kinds:
                where.setdefault(name, []).append(module.as_posix())

    assert {} == {name: found for name, found in where.items() if len(found) > 1}
