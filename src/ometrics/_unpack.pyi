# SPDX-License-Identifier: MIT
from ometrics.snapshot import PerformanceMetrics

def unpack(
    packed: bytes, codes: list[str], buckets: tuple[float, ...], uptime: float, /
) -> dict[str, PerformanceMetrics]: ...
