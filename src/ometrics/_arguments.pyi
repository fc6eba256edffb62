# SPDX-License-Identifier: MIT
from typing import Final

MAX_NAME: Final[int]
