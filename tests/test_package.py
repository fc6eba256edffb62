# SPDX-License-Identifier: MIT
"""`import ometrics`: what a newcomer sees first, and what it costs."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ometrics

# Documented by their full path.
ROOMS = {"diagnosis", "export", "ollama", "openai", "rules", "serve", "testing"}


def fresh(code: str) -> Any:
    """What a fresh interpreter prints as JSON for this code; warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


def test_dir_is_what_is_public() -> None:
    """Completion offers the public names and rooms, and nothing else."""
    offered = {name for name in dir(ometrics) if not name.startswith("__")}
    rooms = offered - {*ometrics.__all__}

    assert {*ometrics.__all__} <= offered
    assert ROOMS <= rooms
    assert {f"ometrics.{room}" for room in rooms} == {
        importlib.import_module(f"ometrics.{room}").__name__ for room in rooms
    }


def test_rooms_are_entered_by_attribute() -> None:
    """`import ometrics` is enough for what the documents name by its full path."""
    found = fresh(
        "import json, ometrics\n"
        "print(json.dumps([ometrics.export.textfile.__name__,\n"
        "    ometrics.testing.FakeClock.__name__,\n"
        "    ometrics.ollama.instrument.__name__,\n"
        "    ometrics.openai.instrument.__name__, ometrics.serve.__name__]))"
    )

    assert [
        "ometrics.export.textfile",
        "FakeClock",
        "instrument",
        "instrument",
        "ometrics.serve",
    ] == found


@pytest.mark.parametrize("package", ["ometrics", "ometrics.export"])
def test_checkers_and_interpreter_see_the_same_names(package: str) -> None:
    """The imports that type checkers read name what is found at run time."""
    module = importlib.import_module(package)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    checked = {
        (node.module, alias.name)
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    public = {name for name in dir(module) if not name.startswith("__")}

    assert public == {name for _, name in checked}
    for home, name in checked:
        expected = getattr(importlib.import_module(home or ""), name)
        assert expected is getattr(module, name), name


def test_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name says which module lacks it."""
    with pytest.raises(AttributeError, match=r"module 'ometrics' has no .* 'Metrics'"):
        ometrics.Metrics  # noqa: B018


def test_import_loads_nothing_but_itself() -> None:
    """The import alone costs next to nothing: no module of the library, no optional."""
    loaded = fresh(
        "import sys, __future__; before = {*sys.modules}\n"
        "import ometrics; after = {*sys.modules}\n"
        "import json; print(json.dumps(sorted(after - before)))"
    )

    assert ["ometrics", "ometrics._lazy"] == loaded


def test_star_import() -> None:
    """`from ometrics import *` gives what `__all__` names."""
    names = fresh(
        "import json; before = {*globals()}; from ometrics import *\n"
        "print(json.dumps(sorted({*globals()} - before - {'before'})))"
    )

    assert sorted(ometrics.__all__) == names
