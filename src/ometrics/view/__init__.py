# SPDX-License-Identifier: MIT
"""What people read: numbers, names, summaries, tables and plots.

Each file has one job; import what you need from it:

- `units`: durations, counts, rates and bytes with three significant digits.
- `escape`: `harmless`, which every text from outside passes before it is printed.
- `summary`: plain text, as `get_metrics_summary` returns it.
- `plots`: bars, sparklines and histograms of characters.
- `tables`, `live`, `terminal`: tables for a terminal; these need rich.
"""
