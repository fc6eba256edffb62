# SPDX-License-Identifier: MIT
"""The same measurements in front of a server: every client, in any language.

`Proxy.start(collector, upstream=...)` passes requests on to a server and its answers
back, unchanged and as they come, and records of each call to a model what an
instrumented client would. `ometrics proxy` is the same as a command.
"""

from __future__ import annotations

from ometrics.proxy.proxy import Proxy
from ometrics.proxy.upstream import DEFAULT_UPSTREAM, Upstream

__all__ = ["DEFAULT_UPSTREAM", "Proxy", "Upstream"]
