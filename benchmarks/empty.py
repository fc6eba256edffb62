# SPDX-License-Identifier: MIT
"""Builds `_empty.pyx` in place, when that is newer than its library, and imports it."""

from __future__ import annotations

import ast
import importlib
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent


def _assigned(name: str, source: str) -> ast.expr:
    """What a file assigns to `name`: setup.py cannot be imported without building."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node.value
    raise LookupError(f"setup.py assigns no {name}")


def _build(setup: Path) -> None:
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    arguments = _assigned("compile_args", setup.read_text("utf-8"))
    extension = Extension(
        "_empty",
        [str(HERE / "_empty.pyx")],
        extra_compile_args=eval(  # our own file: the flags of the real core
            ast.unparse(arguments), {"sys": sys}
        ),
    )
    modules = cythonize(
        [extension],
        compiler_directives=ast.literal_eval(
            _assigned("DIRECTIVES", setup.read_text("utf-8"))
        ),
        include_path=[str(setup.parent / "src")],
        quiet=True,
    )
    distribution = Distribution({"name": "empty", "ext_modules": modules})
    command = distribution.get_command_obj("build_ext")
    command.build_lib = str(HERE)
    command.build_temp = str(HERE.parent / "build" / "benchmarks")
    command.ensure_finalized()
    command.run()


def load() -> ModuleType:
    """The module `_empty`, built if need be."""
    library = HERE / f"_empty{sysconfig.get_config_var('EXT_SUFFIX')}"
    setup = HERE.parent / "setup.py"
    sources = (
        HERE / "_empty.pyx",
        setup,
        setup.parent / "src" / "ometrics" / "_record.pxd",
    )
    if not library.exists() or library.stat().st_mtime < max(
        source.stat().st_mtime for source in sources
    ):
        _build(setup)
        importlib.invalidate_caches()
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module("_empty")
