# SPDX-License-Identifier: MIT
"""From numbers to reasons: why a model is slow, and what to do about it.

    for finding in ometrics.diagnose(mc):
        print(finding)

Each finding is one function in `checks` or `failures`; its limits are in
`docs/diagnosis.md`.
"""

from __future__ import annotations

from ometrics.diagnosis.current import Findings
from ometrics.diagnosis.examine import diagnose
from ometrics.diagnosis.finding import Evidence, Finding

__all__ = ["Evidence", "Finding", "Findings", "diagnose"]
