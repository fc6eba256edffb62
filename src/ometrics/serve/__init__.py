# SPDX-License-Identifier: MIT
"""The guarded HTTP endpoint: `/metrics`, `/metrics.json` and `/healthz`.

`Endpoint.start(source)` (or `mc.serve()`) runs one on a port of its own; `asgi(source)`
and `wsgi(source)` mount the same pages in an application that has a server already. All
take any source, further pages (`Page`), and numbers of the serving process (`counter`,
`gauge`).
"""

from __future__ import annotations

from ometrics.serve.endpoint import Endpoint
from ometrics.serve.mount import asgi, wsgi
from ometrics.serve.numbers import Numbers, counter, gauge
from ometrics.serve.pages import Page

__all__ = ["Endpoint", "Numbers", "Page", "asgi", "counter", "gauge", "wsgi"]
