# SPDX-License-Identifier: MIT
"""Exact, nearly free metrics for agents that talk to Ollama models.

Importing this starts nothing and loads no optional package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ometrics._core import ModelRecorder, Timer
from ometrics.collector import Clock, MetricsCollector
from ometrics.errors import (
    ErrorConnectionFailed,
    ErrorInvalidModel,
    ErrorInvalidRequest,
    ErrorModelNotLoaded,
    ErrorResourceExhausted,
    ErrorTimeout,
    OllamaError,
    UnknownModelError,
)
from ometrics.events import EventChannel, MetricsEvent
from ometrics.histogram import (
    DEFAULT_BUCKETS,
    GENAI_DURATION_BUCKETS,
    LatencyHistogram,
)
from ometrics.snapshot import (
    CallMetrics,
    PerformanceMetrics,
    ResourceMetrics,
    Snapshot,
    TaskStatistics,
)

if TYPE_CHECKING:
    from ometrics import export as export
    from ometrics import ollama as ollama
    from ometrics import openai as openai
    from ometrics import serve as serve
    from ometrics import testing as testing

__all__ = [
    "DEFAULT_BUCKETS",
    "GENAI_DURATION_BUCKETS",
    "CallMetrics",
    "Clock",
    "ErrorConnectionFailed",
    "ErrorInvalidModel",
    "ErrorInvalidRequest",
    "ErrorModelNotLoaded",
    "ErrorResourceExhausted",
    "ErrorTimeout",
    "EventChannel",
    "LatencyHistogram",
    "MetricsCollector",
    "MetricsEvent",
    "ModelRecorder",
    "OllamaError",
    "PerformanceMetrics",
    "ResourceMetrics",
    "Snapshot",
    "TaskStatistics",
    "Timer",
    "UnknownModelError",
]

__version__ = "0.1.0"

_ROOMS = frozenset({"export", "ollama", "openai", "serve", "testing"})


def __getattr__(name: str) -> Any:
    """Import a room when it is first entered: `ometrics.ollama` and the others."""
    if name in _ROOMS:
        return importlib.import_module(f"ometrics.{name}")
    raise AttributeError(f"module 'ometrics' has no attribute {name!r}")
