# SPDX-License-Identifier: MIT
from typing import final

RUNNING: tuple[str, ...]

@final
class Running: ...
