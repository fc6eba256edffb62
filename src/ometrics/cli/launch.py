# SPDX-License-Identifier: MIT
"""Run a program in this process as `python` would have run it.

`runpy.run_path` would not do: it takes `__main__` away again while threads and exit
handlers of the program still live. Here `__main__` is the program's for good.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import io
import os
import pkgutil
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any


def become(argv: Sequence[str], *, is_module: bool) -> None:
    """
    Be a program by name, before it runs: in `sys.argv`, and as `__main__`.

    Args:
        argv: Script or module, and its arguments.
        is_module: Whether `argv[0]` names a module, as after `python -m`.
    """
    main = ModuleType("__main__")
    vars(main)["__builtins__"] = builtins
    if is_module:
        main.__spec__ = importlib.machinery.ModuleSpec(argv[0], None)
    sys.modules["__main__"] = main
    sys.argv = ["-m", *argv[1:]] if is_module else [*argv]


def launch(argv: Sequence[str], *, is_module: bool) -> None:
    """
    Run a script, a directory or zip file with a `__main__.py`, or a module.

    Args:
        argv: Script or module, and its arguments.
        is_module: Whether `argv[0]` names a module, as after `python -m`.

    Raises:
        BaseException: What the program raised, for the interpreter to end with; its
            traceback is shown without the frames of this package.
    """
    become(argv, is_module=is_module)
    main = sys.modules["__main__"]
    main.__spec__ = None  # as while python looks for a module
    try:
        if is_module:
            _first_on_path(os.getcwd())  # noqa: PTH109 - as python puts it there
            _run_as_main(argv[0], alter_argv=True)
        else:
            _run_path(argv[0], main)
    except BaseException:
        _hide_our_frames()
        raise


def _run_path(path: str, main: ModuleType) -> None:
    """Run a file, or what a directory or zip file holds."""
    if pkgutil.get_importer(path) is not None:  # `python` calls it a path entry
        if not _is_safe():
            del sys.path[0]
        sys.path.insert(0, os.path.abspath(path))  # noqa: PTH100 - resolves no links
        _run_as_main("__main__", alter_argv=False)
        return
    # As in `python`: where the script really is, not where a link to it lies.
    _first_on_path(str(Path(path).resolve().parent))
    main.__file__ = os.path.abspath(path)  # noqa: PTH100 - resolves no links
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", main.__file__)
    vars(main)["__cached__"] = None
    exec(_code_of(path, main.__file__), vars(main))  # noqa: S102 - the whole purpose


def _code_of(path: str, name: str) -> CodeType:
    """The code of a source or `.pyc` file."""
    with io.open_code(path) as file:
        code: CodeType | None = pkgutil.read_code(file)
        if code is not None:
            return code
    with io.open_code(path) as file:
        return compile(file.read(), name, "exec", dont_inherit=True)


def _run_as_main(module: str, *, alter_argv: bool) -> None:
    # What the interpreter itself calls for `-m` and for directories: the public
    # `run_module` gives the program a `__main__` that does not last.
    runner: Any = vars(runpy)["_run_module_as_main"]
    runner(module, alter_argv)


def _first_on_path(entry: str) -> None:
    """Put the program's directory where `python` put ours."""
    if not _is_safe():
        sys.path[0] = entry


def _is_safe() -> bool:
    """Whether `python` put no directory first (`-P`, `-I`, `PYTHONSAFEPATH`)."""
    return bool(getattr(sys.flags, "safe_path", sys.flags.isolated))


def _hide_our_frames() -> None:
    """
    Make the interpreter show the traceback as if it had run the program itself.

    Only the hook at the very end is wrapped, so that an exception hook of the program,
    exit codes and the signal of an unhandled Ctrl-C stay the interpreter's business.
    """
    shown = sys.excepthook

    def hook(
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        inner = trace
        while inner is not None:
            if inner.tb_frame.f_code.co_filename == __file__:
                trace = inner.tb_next  # what the innermost frame of this file called
            inner = inner.tb_next
        error.__traceback__ = trace
        shown(kind, error, trace)

    sys.excepthook = hook
