# SPDX-License-Identifier: MIT
"""Findings in the terminal: whole, or as lines under a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ometrics.diagnosis import Finding, Findings
from ometrics.view.escape import harmless
from ometrics.view.units import counted

_MOST: Final = 4  # under a table


def whole(finding: Finding) -> Group:
    """A line to read, and two to read on, which stay indented when they wrap."""
    more = Table.grid(padding=(0, 2, 0, 0))
    more.add_row("  because", "; ".join(map(str, finding.evidence)))
    more.add_row("  do", finding.advice)
    return Group(line(finding), more, "")


def line(finding: Finding) -> Text:
    """Model, what is so, and how sure that is."""
    return Text.assemble(
        (harmless(finding.model) or "all models", "bold"),
        ": ",
        (finding.what, "bold red" if finding.problem else "bold"),
        (f"  {finding.certainty}", "dim"),
    )


def problems(findings: Sequence[Finding]) -> list[RenderableType]:
    """The first few that are wrong, whole, and how many more there are."""
    wrong = [finding for finding in findings if finding.problem]
    shown: list[RenderableType] = [whole(finding) for finding in wrong[:_MOST]]
    if len(wrong) > _MOST:
        more = counted(len(wrong) - _MOST, "more finding")
        shown.append(Text(f"and {more}: ometrics doctor", "dim"))
    return shown


class FindingLines:
    """
    The problems of now, a line each, made anew whenever rich renders them.

    Args:
        findings: Of the source that is shown.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render for rich."""
        del console, options
        wrong = [finding for finding in self._findings.current() if finding.problem]
        if wrong:
            yield ""
        for finding in wrong[:_MOST]:
            yield line(finding)
        if len(wrong) > _MOST:
            yield Text(f"and {counted(len(wrong) - _MOST, 'more finding')}", "dim")
