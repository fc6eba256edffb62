# SPDX-License-Identifier: MIT
"""Settings of all property tests: none of them measures time or may fail by it."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ometrics", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ometrics")
