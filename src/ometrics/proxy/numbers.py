# SPDX-License-Identifier: MIT
"""What a proxy tells of itself, beside the calls that it measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal, get_args

from ometrics.export.names import Family, Labels
from ometrics.proxy.guard import Reason
from ometrics.serve.numbers import counter, gauge

#: How a request that was let through ended.
Result = Literal[
    "answered", "upstream_unreachable", "answer_broken", "caller_gone", "failed"
]

CONNECTIONS: Final = gauge(
    "ometrics.proxy.connections",
    "{connection}",
    "Connections of callers that are open.",
)
UNDER_WAY: Final = gauge(
    "ometrics.proxy.requests.under_way",
    "{request}",
    "Requests that are being passed on or answered.",
)
REQUESTS: Final = counter(
    "ometrics.proxy.requests",
    "{request}",
    "Requests let through, by how they ended: answered by the server, whatever its"
    " status; upstream_unreachable, answered 502; answer_broken off by the server;"
    " caller_gone before the end, or its body broken; failed in the proxy itself.",
    ("result",),
)
TURNED_AWAY: Final = counter(
    "ometrics.proxy.turned_away",
    "{request}",
    "Requests answered without the server, by reason, and connections closed for want"
    " of room (full).",
    ("reason",),
)
UNMEASURED: Final = counter(
    "ometrics.proxy.unmeasured",
    "{request}",
    "Requests to a model's path whose body names no model: passed on, not measured.",
)
BYTES: Final = counter(
    "ometrics.proxy.body.size",
    "By",
    "Bytes of bodies passed on: requests are to the server, answers from it.",
    ("direction",),
)
UPSTREAM_UP: Final = gauge(
    "ometrics.proxy.upstream.up",
    "{server}",
    "1 if the server answered the last request, 0 if it could not be reached; absent"
    " before the first.",
)
#: All that a proxy tells of itself.
METRICS: Final = (
    *(CONNECTIONS, UNDER_WAY, REQUESTS, TURNED_AWAY, UNMEASURED, BYTES, UPSTREAM_UP),
)


class ProxyCounts:
    """
    The numbers themselves.

    Attributes:
        connections: Open ones.
        under_way: Requests that are.
        requests: By result.
        turned_away: By reason.
        unmeasured: Requests to a model that could not be measured.
        request_bytes: Of bodies.
        answer_bytes: Of bodies.
        upstream_up: `None` until it is known.

    Thread-safety:
        The event loop's thread writes, any thread reads.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.under_way = 0
        self.requests: Counter[Result] = Counter(dict.fromkeys(get_args(Result), 0))
        self.turned_away: Counter[Reason] = Counter(dict.fromkeys(get_args(Reason), 0))
        self.unmeasured = 0
        self.request_bytes = 0
        self.answer_bytes = 0
        self.upstream_up: bool | None = None

    def families(self) -> Iterator[Family[Labels]]:
        """All of them, for a page."""
        yield Family.of(CONNECTIONS, [((), self.connections)])
        yield Family.of(UNDER_WAY, [((), self.under_way)])
        yield Family.of(
            REQUESTS, [((("result", r),), n) for r, n in self.requests.items()]
        )
        yield Family.of(
            TURNED_AWAY, [((("reason", r),), n) for r, n in self.turned_away.items()]
        )
        yield Family.of(UNMEASURED, [((), self.unmeasured)])
        sizes = (("request", self.request_bytes), ("answer", self.answer_bytes))
        yield Family.of(BYTES, [((("direction", d),), n) for d, n in sizes])
        if self.upstream_up is not None:
            yield Family.of(UPSTREAM_UP, [((), int(self.upstream_up))])
