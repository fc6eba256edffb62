# SPDX-License-Identifier: MIT
"""
One line instruments the official Ollama client.

    import ollama, ometrics

    mc = ometrics.ollama.instrument()
    ollama.chat(model="llama3.2", messages=[...])
    print(mc.get_summary())
"""

from ometrics.loaded import LoadedModel
from ometrics.ollama.instrument import instrument, uninstrument, wrap
from ometrics.ollama.polling import Residency, residency

__all__ = [
    "LoadedModel",
    "Residency",
    "instrument",
    "residency",
    "uninstrument",
    "wrap",
]
