# SPDX-License-Identifier: MIT
"""`Snapshot` to bytes, one module a format; none of them knows the core."""

from __future__ import annotations

from ometrics._lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ometrics.export import json as json
    from ometrics.export import otel_bridge as otel_bridge
    from ometrics.export import otlp as otlp
    from ometrics.export import prometheus as prometheus
    from ometrics.export import textfile as textfile
else:
    __getattr__, __dir__ = lazy(
        __name__, {}, modules=("json", "otel_bridge", "otlp", "prometheus", "textfile")
    )
