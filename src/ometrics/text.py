# SPDX-License-Identifier: MIT
"""Names as they may leave the process: valid Unicode, in one way everywhere."""

from __future__ import annotations


def valid(text: str) -> str:
    """
    Text that UTF-8 can encode.

    Two surrogates that belong together become their character, a lone one U+FFFD.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
