# SPDX-License-Identifier: MIT
"""Calls to models, measured where they pass by as HTTP.

`endpoints` says which requests are calls, `answers` reads what comes back, `exchange`
puts both together for one request. None of these knows an HTTP client.
"""
