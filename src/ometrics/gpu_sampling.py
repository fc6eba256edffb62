# SPDX-License-Identifier: MIT
"""The optional sampler of this machine's GPUs, by their vendors' own libraries.

Extras `nvidia` (nvidia-ml-py) and `amd` (amdsmi); without one, and without a device,
there is nothing to see. What a device does not tell is unknown, not 0.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec.structs import replace

from ometrics.gpus import GpuMetrics
from ometrics.text import valid

if TYPE_CHECKING:
    from typing_extensions import Self

    from ometrics.clock import Clock
    from ometrics.snapshot import Snapshot

_MIB: Final = 1 << 20
_LONGEST_NAME: Final = 128


class GpuReading(NamedTuple):
    """
    What a library says of one device now.

    Attributes:
        metrics: All but the energy.
        energy_mj: Its own counter, from some time; `None` if it has none.
    """

    metrics: GpuMetrics
    energy_mj: int | None


def nvidia() -> Iterator[GpuReading]:
    """The devices that NVIDIA's driver knows, by `nvidia-ml-py`."""
    nvml: Any = importlib.import_module("pynvml")
    nvml.nvmlInit()
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = _told(nvml.nvmlDeviceGetMemoryInfo, device)
            busy = _told(nvml.nvmlDeviceGetUtilizationRates, device)
            sensor = nvml.NVML_TEMPERATURE_GPU
            metrics = GpuMetrics(
                name=_name(index, _told(nvml.nvmlDeviceGetName, device)),
                memory_used=_number(getattr(memory, "used", None)),
                memory_total=_number(getattr(memory, "total", None)),
                utilization=_number(getattr(busy, "gpu", None), 0.01),
                temperature=_number(
                    _told(nvml.nvmlDeviceGetTemperature, device, sensor), 1.0
                ),
                power=_number(_told(nvml.nvmlDeviceGetPowerUsage, device), 1e-3),
            )
            energy = _told(nvml.nvmlDeviceGetTotalEnergyConsumption, device)
            yield GpuReading(metrics, _number(energy))
    finally:
        nvml.nvmlShutdown()


def amd() -> Iterator[GpuReading]:
    """The devices that AMD's driver knows, by `amdsmi`."""
    smi: Any = importlib.import_module("amdsmi")
    smi.amdsmi_init()
    try:
        for index, device in enumerate(smi.amdsmi_get_processor_handles()):
            asic = _told(smi.amdsmi_get_gpu_asic_info, device) or {}
            memory = _told(smi.amdsmi_get_gpu_vram_usage, device) or {}
            busy = _told(smi.amdsmi_get_gpu_activity, device) or {}
            power = _told(smi.amdsmi_get_power_info, device) or {}
            energy = _told(smi.amdsmi_get_energy_count, device) or {}
            edge, current = (
                smi.AmdSmiTemperatureType.EDGE,
                smi.AmdSmiTemperatureMetric.CURRENT,
            )
            watts = power.get("current_socket_power")
            if not isinstance(watts, (int, float)):
                watts = power.get("average_socket_power")
            ticks = _number(energy.get("energy_accumulator"))
            microjoules = _number(energy.get("counter_resolution"), 1.0)
            yield GpuReading(
                GpuMetrics(
                    name=_name(index, asic.get("market_name")),
                    memory_used=_number(memory.get("vram_used"), _MIB),
                    memory_total=_number(memory.get("vram_total"), _MIB),
                    utilization=_number(busy.get("gfx_activity"), 0.01),
                    temperature=_number(
                        _told(smi.amdsmi_get_temp_metric, device, edge, current), 1.0
                    ),
                    power=_number(watts, 1.0),
                ),
                None
                if ticks is None or microjoules is None
                else round(ticks * microjoules / 1e3),
            )
    finally:
        smi.amdsmi_shut_down()


def _told(ask: Callable[..., Any], *of: object) -> Any:
    """What a library says; `None` where it does not, which has a class of its own."""
    try:
        return ask(*of)
    except Exception:  # noqa: BLE001 - each library has its own errors
        return None


def _number(value: object, unit: float = 1) -> Any:
    """A number of so many units; `None` for `N/A` and what cannot be."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value * unit if 0 <= value < 1 << 53 else None


def _name(index: int, model: object) -> str:
    if isinstance(model, bytes):
        model = model.decode("utf-8", "replace")
    return valid(f"{index} {model or 'GPU'}")[:_LONGEST_NAME]


LIBRARIES: Final = (nvidia, amd)


class GpuSampler:
    """
    Looks at all GPUs of this machine, again and again.

    Args:
        interval: Seconds between two looks.
        clock: Where to read the time instead of the system, for tests.

    Raises:
        ValueError: The interval is not above zero.

    Thread-safety:
        Every method, from any thread.
    """

    def __init__(self, *, interval: float = 5.0, clock: Clock | None = None) -> None:
        if not 0 < interval < float("inf"):
            raise ValueError(f"interval {interval!r} must be above 0 s")
        self._interval = interval
        self._clock: Clock = clock or time
        self._gpus: dict[str, GpuMetrics] = {}
        # Of each: its own counter at first; or when its power was last known.
        self._first: dict[str, int] = {}
        self._at: dict[str, float] = {}
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Look once, now; what cannot be seen is left out."""
        with self._lock:
            gpus = {}
            for library in LIBRARIES:
                with contextlib.suppress(Exception):  # not installed, or no device
                    for reading in library():
                        gpus[reading.metrics.name] = self._with_energy(reading)
            self._gpus = gpus

    def _with_energy(self, reading: GpuReading) -> GpuMetrics:
        """By its own counter, or by its power over time."""
        gpu, now = reading.metrics, self._clock.monotonic()
        known = self._gpus.get(gpu.name)
        energy = None if known is None else known.energy_mj
        if reading.energy_mj is not None:
            first = self._first.setdefault(gpu.name, reading.energy_mj)
            energy = max(reading.energy_mj - first, energy or 0)
        elif gpu.power is not None:
            seconds = now - self._at.get(gpu.name, now)
            energy = (energy or 0) + round(gpu.power * seconds * 1e3)
        self._at[gpu.name] = now
        return replace(gpu, energy_mj=energy)

    def added_to(self, snapshot: Snapshot) -> Snapshot:
        """The same snapshot with what was seen last."""
        return replace(snapshot, gpus=self._gpus) if self._gpus else snapshot

    def start(self) -> Self:
        """Look in a daemon thread until `close`. Idempotent."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="ometrics-gpus", daemon=True
                )
                self._thread.start()
        return self

    def revive(self) -> None:
        """Start again in a forked child, which has no threads; nothing elsewhere."""
        if self._pid != os.getpid():
            ended = self._stop.is_set()
            self._begin()
            if not ended:
                self.start()

    def _run(self) -> None:
        self.look()
        while not self._stop.wait(self._interval):
            self.look()

    def close(self) -> None:
        """Look no more. Idempotent; what was seen can still be read."""
        self._stop.set()
