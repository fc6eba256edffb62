# SPDX-License-Identifier: MIT
"""The demo: a team of agents at work on real inference, measured and shown.

- `show`: the whole show, as `ometrics demo` runs it.
- `team`: the agents and what each does.
- `server`: an Ollama that answers, or the embedded engine.
- `engine`, `engine_api`, `engine_http`: llama.cpp behind Ollama's API.

Nothing else in the package imports this one, except `cli/demo.py` when it runs.
"""
