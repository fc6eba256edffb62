# SPDX-License-Identifier: MIT
"""Thresholds and objectives: what is wrong, since when, and who is told.

    from ometrics.rules import Rule

    mc.watch([Rule("slow answers", "latency.p95", above="2s", for_="1m")])

The same rules stand in a TOML file (`ometrics.rules.load`), check an exported file
(`ometrics check`), and become Prometheus rules (`ometrics rules show --prometheus`).
"""

from __future__ import annotations

from ometrics.rules.engine import Alert, Engine, RuleStatus
from ometrics.rules.limits import Expectation, expect
from ometrics.rules.objectives import Attainment, attained
from ometrics.rules.quantities import Quantity, quantities, resolve
from ometrics.rules.rule import Objective, Rule, RuleError
from ometrics.rules.stalls import Stalls

__all__ = [
    "Alert",
    "Attainment",
    "Engine",
    "Expectation",
    "Objective",
    "Quantity",
    "Rule",
    "RuleError",
    "RuleStatus",
    "Stalls",
    "attained",
    "expect",
    "quantities",
    "resolve",
]
