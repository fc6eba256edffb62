# SPDX-License-Identifier: MIT
"""The HTTP clients that are measured, where each is patched, and those that are not."""

from __future__ import annotations

from typing import Final

# The packages that are patched when they are imported -> the module here that does it.
CLIENTS: Final = {
    "httpx": "ometrics.instrumentation.on_httpx",
    "httpx2": "ometrics.instrumentation.on_httpx",
    "aiohttp": "ometrics.instrumentation.on_aiohttp",
    "http.client": "ometrics.instrumentation.on_http_client",
    "urllib3.connection": "ometrics.instrumentation.on_http_client",
    "dspy._vendor.lm15.transports._sync": "ometrics.instrumentation.on_lm15",
    "dspy._vendor.lm15.transports._async": "ometrics.instrumentation.on_lm15",
    "lm15.transports._sync": "ometrics.instrumentation.on_lm15",
    "lm15.transports._async": "ometrics.instrumentation.on_lm15",
}

# Those that are not, having ways of their own to the network, by the module with it.
OTHER_CLIENTS: Final = (
    *("curl_cffi", "grpc", "niquests", "primp", "pycurl", "rnet"),
    *("tornado.httpclient", "twisted.web.client"),
)
