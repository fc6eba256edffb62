# SPDX-License-Identifier: MIT
"""
One line instruments the official Ollama client.

    import ollama, ometrics

    mc = ometrics.ollama.instrument()
    ollama.chat(model="llama3.2", messages=[...])
    print(mc.get_summary())
"""

from ometrics.ollama.instrument import instrument, uninstrument, wrap

__all__ = ["instrument", "uninstrument", "wrap"]
