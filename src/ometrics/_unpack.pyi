# SPDX-License-Identifier: MIT
from typing import Any

def unpack(packed: bytes, codes: list[str], /) -> list[dict[str, Any]]: ...
