# SPDX-License-Identifier: MIT
"""The guarded HTTP endpoint: `/metrics`, `/metrics.json` and `/healthz`.

`Endpoint.start(mc)` (or `mc.serve()`) runs one on a port of its own; `asgi(mc)` and
`wsgi(mc)` mount the same pages in an application that has a server already.
"""

from __future__ import annotations

from ometrics.serve.endpoint import Endpoint
from ometrics.serve.mount import asgi, wsgi

__all__ = ["Endpoint", "asgi", "wsgi"]
