# SPDX-License-Identifier: MIT
"""The command as a whole: its help, its version, and why it cannot run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import (
    OMETRICS,
    call,
    environment,
    python,
)

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")

from ometrics.cli.app import COMMANDS


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str, columns: int) -> None:
    """Every command has examples, they are commands, and the page fits."""
    result = call(command, "--help", env=environment(COLUMNS=str(columns)))

    assert 0 == result.returncode
    assert f"  ometrics {command} " in result.stdout.partition("Examples:")[2]
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "\b" not in result.stdout
    assert "\\b" not in result.stdout


@pytest.mark.parametrize("columns", [60, 80])
def test_help_of_the_whole_fits(columns: int) -> None:
    """Each command and each example is a line of its own."""
    result = call("--help", env=environment(COLUMNS=str(columns)))
    lines = result.stdout.splitlines()

    assert max(map(len, lines)) <= columns
    assert "\\b" not in result.stdout
    for command in COMMANDS:
        assert [line for line in lines if line.startswith(f"  {command} ")]
    assert [line for line in lines if line.startswith("  ometrics run --live agent.py")]


def test_help_imports_no_command() -> None:
    """So that many commands cost no time."""
    program = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from ometrics.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'rich', 'ometrics.cli.run'} & {*sys.modules}))"
    )

    assert python("-c", program).stdout.endswith("[]\n")


def test_a_wrong_command_names_the_right_one() -> None:
    """Exit code 2, and what may have been meant."""
    result = call("shwo")

    assert 2 == result.returncode
    assert "is it show?" in result.stderr


def test_without_arguments_there_is_help() -> None:
    """It names every command, and exits with 2 as nothing was asked for."""
    result = call()

    assert 2 == result.returncode
    for command in COMMANDS:
        assert f"  {command} " in result.stdout + result.stderr


def test_version() -> None:
    """The package's."""
    import ometrics

    assert f"ometrics, version {ometrics.__version__}\n" == call("--version").stdout


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(package: str) -> None:
    """No traceback, exit code 2."""
    program = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv[1:] = ['show', '-']\n"
        "from ometrics.cli import main; main()"
    )
    result = python("-c", program)

    assert 2 == result.returncode
    assert 1 == result.stderr.count("\n")
    assert "pip install 'ollama-metrics[cli]'" in result.stderr


def test_ctrl_c_in_the_command_itself(tmp_path: Path) -> None:
    """Exit code 130, no traceback."""
    if os.name == "nt":
        pytest.skip("needs POSIX signals")
    with subprocess.Popen(
        [*OMETRICS, "show", "-"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        # Read in pieces: what fills the pipe twice has been read once.
        process.stdin.write(b" " * 200_000)
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)

    assert 130 == process.returncode
    assert b"Traceback" not in told


def test_the_process_is_the_one_that_was_started() -> None:
    """The tests run this tree, not another ometrics."""
    result = python("-c", "import ometrics; print(ometrics.__file__)")

    assert result.stdout.strip() == sys.modules["ometrics"].__file__
