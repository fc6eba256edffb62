# SPDX-License-Identifier: MIT
"""What people read: names, numbers, summaries, tables and plots.

A file a job; import what you need from it. Plain text, which needs no package:

- `units`: durations, counts, rates, bytes and percent with three significant digits.
- `names`: what phases, times, tokens and losses are called.
- `escape`: `harmless`, through which every text from outside goes before it is printed.
- `plots`: bars, sparklines, charts over time and histograms of characters.
- `lines`, `html`: how objects show themselves in a terminal and in a notebook.
- `calls`: a model's calls of all operations as one.
- `summary`: what `get_summary` and its sisters return.

For a terminal, with rich:

- `terminal`: `console_for` a stream: its width, its colours, ASCII where it must be.
- `fitted`: `FittedTable` and `Flow`, which leave out what is worth least.
- `tables`, `histogram_plot`: snapshots and histograms.
- `live`: a table that updates in place.
"""
