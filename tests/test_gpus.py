# SPDX-License-Identifier: MIT
# ruff: noqa: D102, N802 - the library's names
"""GPUs by their vendors' libraries.

No device is needed: the libraries are fakes, which have the real one's names where that
is installed. What a real device says has not been seen by these tests.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hooks import wait_for

from ometrics import MetricsCollector, Snapshot
from ometrics.export.prometheus import TEXT, render
from ometrics.gpu_sampling import GpuSampler
from ometrics.gpus import GpuMetrics
from ometrics.testing import FakeClock, chat_done


class Nvml(SimpleNamespace):
    """What this package uses of `pynvml`, with one device.

    Attributes:
        energy: Its counter in mJ; `None`: an old device without one.
        watts: Its power.
    """

    NVML_TEMPERATURE_GPU = 0
    energy: int | None = 5_000_000
    watts: float = 70.0
    open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, device: int) -> str:
        return "NVIDIA L4"

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:
        return SimpleNamespace(used=6 << 30, total=24 << 30)

    def nvmlDeviceGetUtilizationRates(self, device: int) -> Any:
        return SimpleNamespace(gpu=75, memory=20)

    def nvmlDeviceGetTemperature(self, device: int, sensor: int) -> int:
        return 61

    def nvmlDeviceGetPowerUsage(self, device: int) -> int:
        return round(self.watts * 1000)

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:
        if self.energy is None:
            raise RuntimeError("Not Supported")
        return self.energy


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    """The fake in place of the library, and no other library."""
    fake = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    return fake


def seen(sampler: GpuSampler) -> GpuMetrics:
    """The one GPU, looked at now."""
    sampler.look()
    (gpu,) = sampler.added_to(MetricsCollector().snapshot()).gpus.values()
    return gpu


def test_what_nvidia_says(nvml: Nvml) -> None:
    """In our units; its energy counts from the first look."""
    sampler = GpuSampler(clock=FakeClock())
    first = seen(sampler)
    nvml.energy = 5_001_500

    assert first == GpuMetrics(
        name="0 NVIDIA L4",
        memory_used=6 << 30,
        memory_total=24 << 30,
        utilization=0.75,
        temperature=61.0,
        power=70.0,
        energy_mj=0,
    )
    assert 1_500 == seen(sampler).energy_mj
    assert 0 == nvml.open


def test_power_over_time_where_there_is_no_counter(nvml: Nvml) -> None:
    """70 W for ten seconds are 700 J."""
    nvml.energy = None
    clock = FakeClock()
    sampler = GpuSampler(clock=clock)
    seen(sampler)
    clock.advance(10)

    assert 700_000 == seen(sampler).energy_mj


def test_what_amd_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes, microjoules and `N/A` become our units and unknown."""
    ticks = iter([1_000_000, 3_000_000])
    fake = SimpleNamespace(
        amdsmi_init=lambda: None,
        amdsmi_shut_down=lambda: None,
        amdsmi_get_processor_handles=lambda: ["card"],
        amdsmi_get_gpu_asic_info=lambda _: {"market_name": "MI300X"},
        amdsmi_get_gpu_vram_usage=lambda _: {"vram_used": 512, "vram_total": 1024},
        amdsmi_get_gpu_activity=lambda _: {"gfx_activity": "N/A"},
        amdsmi_get_power_info=lambda _: {
            "current_socket_power": "N/A",
            "average_socket_power": 120,
        },
        amdsmi_get_energy_count=lambda _: {
            "energy_accumulator": next(ticks),
            "counter_resolution": 15.5,
        },
        amdsmi_get_temp_metric=lambda *_: 44,
        AmdSmiTemperatureType=SimpleNamespace(EDGE=0),
        AmdSmiTemperatureMetric=SimpleNamespace(CURRENT=0),
    )
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "amdsmi", fake)
    sampler = GpuSampler(clock=FakeClock())
    seen(sampler)
    gpu = seen(sampler)

    assert ("0 MI300X", 512 << 20, 1 << 30, None, 120.0, 44.0) == (
        *(gpu.name, gpu.memory_used, gpu.memory_total, gpu.utilization),
        *(gpu.power, gpu.temperature),
    )
    assert 31_000 == gpu.energy_mj


def test_without_a_library_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No error, and no GPU in the snapshot."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    sampler = GpuSampler()
    sampler.look()

    assert {} == sampler.added_to(MetricsCollector().snapshot()).gpus


def test_a_device_that_fails_is_left_out(nvml: Nvml) -> None:
    """What one call cannot tell is unknown; a driver that is gone shows nothing."""
    nvml.nvmlDeviceGetPowerUsage = lambda _: -1
    nvml.energy = None
    assert (None, None) == (seen(GpuSampler()).power, seen(GpuSampler()).energy_mj)

    def gone() -> int:
        raise RuntimeError("Driver Not Loaded")

    nvml.nvmlDeviceGetCount = gone
    sampler = GpuSampler()
    sampler.look()
    assert {} == sampler.added_to(MetricsCollector().snapshot()).gpus


def test_energy_a_token(nvml: Nvml) -> None:
    """In the snapshot, its JSON and its metrics, once both are known."""
    with MetricsCollector() as collector:
        collector.sample_gpus(0.01)
        wait_for(lambda: collector.snapshot().gpus)
        assert collector.snapshot().energy_per_token is None
        collector.record_response(chat_done(eval_count=100))
        nvml.energy = 5_050_000
        wait_for(lambda: collector.snapshot().energy_per_token == 0.5)
        snapshot = collector.snapshot()
        page = render(snapshot, TEXT).decode()

    assert snapshot.gpus == Snapshot.from_json(snapshot.to_json()).gpus
    assert 'ometrics_gpu_power_watts{gpu="0 NVIDIA L4"} 70' in page
    assert 'ometrics_gpu_temperature_celsius{gpu="0 NVIDIA L4"} 61' in page
    assert "ometrics_energy_per_token_joules " in page


def test_the_fake_has_the_names_of_the_library() -> None:
    """What is called exists in `nvidia-ml-py`."""
    real = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    used = [name for name in vars(Nvml) if name.lower().startswith("nvml")]

    assert [] == [name for name in used if not hasattr(real, name)]
