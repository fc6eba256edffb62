# SPDX-License-Identifier: MIT
"""`diagnose()`: all checks over all models of a source."""

from __future__ import annotations

from collections.abc import Iterable

from ometrics.diagnosis.case import Case, generating
from ometrics.diagnosis.checks import CHECKS, few_requests, one_takes_most
from ometrics.diagnosis.finding import Finding
from ometrics.loaded import LoadedModel
from ometrics.snapshot import Snapshot
from ometrics.sources import Source


def diagnose(
    source: Source | Snapshot,
    *,
    earlier: Source | Snapshot | None = None,
    loaded: Iterable[LoadedModel] = (),
) -> list[Finding]:
    """
    Say what is wrong with whom, why, and what to do.

    Args:
        source: A collector, anything like it, or a snapshot; a window of it for what is
            so now: `diagnose(mc.window("5m"))`.
        earlier: The same at an earlier time, to find what became slower.
        loaded: What the server says of its models, `Residency.models`, beside what the
            snapshot has of it.

    Returns:
        Problems first; empty if nothing stands out.
    """
    now, before = _snapshot(source), _snapshot(earlier)
    told = {} if now is None else now.loaded_models
    by_name = {model.name: model for model in (*told.values(), *loaded)}
    problems: list[Finding] = []
    notes: list[Finding] = []
    for name, model in (now.models if now is not None else {}).items():
        case = Case(
            model,
            generating(model),
            generating(None if before is None else before.models.get(name)),
            by_name.get(name) or by_name.get(f"{name}:latest"),
        )
        found = [finding for check in CHECKS for finding in check(case)]
        for finding in found or few_requests(case):
            (problems if finding.problem else notes).append(finding)
    if now is not None:
        notes += one_takes_most(now)
    return problems + notes


def _snapshot(source: Source | Snapshot | None) -> Snapshot | None:
    return (
        source if source is None or isinstance(source, Snapshot) else source.snapshot()
    )
