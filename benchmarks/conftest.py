# SPDX-License-Identifier: MIT
"""Prints the report of all bars after the suite, so that one run shows everything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

# The modules beside this one, however pytest was started.
sys.path.insert(0, str(Path(__file__).parent))

import report

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--no-report`: only the suite."""
    parser.addoption("--no-report", action="store_true", help="leave the bars out")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Measure and print; the exit code stays the suite's."""
    if config.getoption("no_report") or config.getoption("collectonly"):
        return
    terminalreporter.section("against the bars")
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        report.show()
