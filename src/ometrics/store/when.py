# SPDX-License-Identifier: MIT
"""Times as people write them: `2026-11-24T09:00`, `now`, `yesterday`, `24h`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from ometrics.durations import parse_length


def parse_time(text: str | datetime, now: datetime | None = None) -> datetime:
    """
    Read a time.

    Args:
        text: `now`; `today` and `yesterday`, which are midnights; a length such as
            `24h`, which is so long ago; an ISO 8601 date or time. All are UTC unless
            the text has an offset. Or a `datetime`.
        now: What `now` is, for tests.

    Raises:
        ValueError: `text` is none of these; the message quotes it.
    """
    if isinstance(text, datetime):
        return _aware(text)
    now = now or datetime.now(timezone.utc)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    named = {
        "now": now,
        "today": midnight,
        "yesterday": midnight - timedelta(days=1),
    }
    if text in named:
        return named[text]
    try:
        return _aware(datetime.fromisoformat(text.replace("Z", "+00:00")))
    except ValueError:
        pass
    try:
        return now - timedelta(seconds=parse_length(text))
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time such as '2026-11-24T09:00', '24h' (ago), 'now',"
            " 'today' or 'yesterday'"
        ) from None


def _aware(time: datetime) -> datetime:
    return time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time
