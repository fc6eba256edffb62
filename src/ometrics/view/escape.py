# SPDX-License-Identifier: MIT
"""Text from outside, made safe to print on a terminal."""

from __future__ import annotations


def harmless(text: str, width: int | None = None) -> str:
    """
    Text without control characters, terminal escapes and direction overrides.

    Args:
        text: Anything, such as the name of a model.
        width: Longest result in characters; longer ones end in `...`.
    """
    if not text.isprintable():
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
        )
    if width is not None and len(text) > width:
        text = text[: width - 3] + "..."
    return text
