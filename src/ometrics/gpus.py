# SPDX-License-Identifier: MIT
"""`GpuMetrics`: what a GPU of this machine does."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ometrics import fields
from ometrics.fields import Gauge, Metric, Same
from ometrics.loaded import Observed


class GpuMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A GPU of this machine, as its vendor's library said last."""

    name: Annotated[str, Same("Its number and model, such as `0 NVIDIA L4`.")]
    memory_used: Annotated[
        int | None,
        Gauge(
            "Bytes of its memory in use.",
            Metric("ometrics.gpu.memory_used", "By"),
        ),
    ] = None
    memory_total: Annotated[
        int | None,
        Gauge("Bytes of its memory.", Metric("ometrics.gpu.memory_total", "By")),
    ] = None
    utilization: Annotated[
        float | None,
        Gauge(
            "Part of the time that it computed, 0 to 1.",
            Metric("ometrics.gpu.utilization", "1"),
        ),
    ] = None
    temperature: Annotated[
        float | None,
        Gauge(
            "Temperature in degrees Celsius.", Metric("ometrics.gpu.temperature", "Cel")
        ),
    ] = None
    power: Annotated[
        float | None,
        Gauge("Power in watts.", Metric("ometrics.gpu.power", "W")),
    ] = None
    energy_mj: Annotated[
        int | None,
        Observed(
            "Millijoules since sampling began.",
            Metric(
                *("ometrics.gpu.energy", "J"),
                "Energy that the GPU used since sampling began.",
            ),
            convert=lambda mj: mj / 1e3,
        ),
    ] = None

    def merge(self, *others: GpuMetrics) -> GpuMetrics:
        """What several processes saw of one GPU."""
        return fields.merge((self, *others))

    def __sub__(self, earlier: GpuMetrics) -> GpuMetrics:
        """As it is now, with the energy used after `earlier`."""
        return fields.delta(self, earlier)


fields.document(GpuMetrics)
