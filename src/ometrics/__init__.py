# SPDX-License-Identifier: MIT
"""Exact, nearly free metrics for agents that talk to Ollama models.

Importing this starts nothing, loads no optional package, and loads the modules below
when one of their names is first read.
"""

from __future__ import annotations

from ometrics._lazy import lazy

TYPE_CHECKING = False  # type checkers take it for true; `typing` itself is slow to load
if TYPE_CHECKING:
    from ometrics import diagnosis as diagnosis
    from ometrics import export as export
    from ometrics import ollama as ollama
    from ometrics import openai as openai
    from ometrics import rules as rules
    from ometrics import serve as serve
    from ometrics import store as store
    from ometrics import testing as testing
    from ometrics._calls import Call
    from ometrics._recorders import ModelRecorder, Timer
    from ometrics.clock import Clock
    from ometrics.collector import MetricsCollector
    from ometrics.diagnosis import Finding, diagnose
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
        TokenHistogram,
    )
    from ometrics.instrumentation.api import instrument, uninstrument
    from ometrics.outcomes import Outcome
    from ometrics.segments import Attached, Instance, attach, runtime_directory
    from ometrics.snapshot import (
        CallMetrics,
        PerformanceMetrics,
        ResourceMetrics,
        Snapshot,
        TaskStatistics,
    )
    from ometrics.sources import Source, merge, read

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_BUCKETS",
    "GENAI_DURATION_BUCKETS",
    "Attached",
    "Call",
    "CallMetrics",
    "Clock",
    "ErrorConnectionFailed",
    "ErrorInvalidModel",
    "ErrorInvalidRequest",
    "ErrorModelNotLoaded",
    "ErrorResourceExhausted",
    "ErrorTimeout",
    "EventChannel",
    "Finding",
    "Instance",
    "LatencyHistogram",
    "MetricsCollector",
    "MetricsEvent",
    "ModelRecorder",
    "OllamaError",
    "Outcome",
    "PerformanceMetrics",
    "ResourceMetrics",
    "Snapshot",
    "Source",
    "TaskStatistics",
    "Timer",
    "TokenHistogram",
    "UnknownModelError",
    "attach",
    "diagnose",
    "instrument",
    "merge",
    "read",
    "runtime_directory",
    "uninstrument",
]

# The same names by module, for the interpreter. Type checkers do not see this, so they
# find a misspelt name.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "_calls": ("Call",),
            "_recorders": ("ModelRecorder", "Timer"),
            "clock": ("Clock",),
            "collector": ("MetricsCollector",),
            "diagnosis": ("Finding", "diagnose"),
            "errors": (
                "ErrorConnectionFailed",
                "ErrorInvalidModel",
                "ErrorInvalidRequest",
                "ErrorModelNotLoaded",
                "ErrorResourceExhausted",
                "ErrorTimeout",
                "OllamaError",
                "UnknownModelError",
            ),
            "events": ("EventChannel", "MetricsEvent"),
            "histogram": (
                "DEFAULT_BUCKETS",
                "GENAI_DURATION_BUCKETS",
                "LatencyHistogram",
                "TokenHistogram",
            ),
            "instrumentation.api": ("instrument", "uninstrument"),
            "outcomes": ("Outcome",),
            "segments": ("Attached", "Instance", "attach", "runtime_directory"),
            "snapshot": (
                "CallMetrics",
                "PerformanceMetrics",
                "ResourceMetrics",
                "Snapshot",
                "TaskStatistics",
            ),
            "sources": ("Source", "merge", "read"),
        },
        modules=(
            "diagnosis",
            "export",
            "ollama",
            "openai",
            "rules",
            "serve",
            "store",
            "testing",
        ),
    )
