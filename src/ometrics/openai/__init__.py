# SPDX-License-Identifier: MIT
"""
One line instruments the official OpenAI client, against any compatible server.

    import openai, ometrics

    mc = ometrics.openai.instrument()
    client = openai.OpenAI(base_url="http://localhost:11434/v1", api_key="ollama")

The record is the same as for Ollama's own client: tokens where the server sends
`usage`, chunks timed; such a server sends no durations, so these stay `None`.
"""

from ometrics.openai.instrument import instrument, uninstrument

__all__ = ["instrument", "uninstrument"]
