# SPDX-License-Identifier: MIT
"""What tests of receivers share: an alert, and a server that takes POSTs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

from typing_extensions import Self

from ometrics.rules import Alert

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=timezone.utc)


def alert(
    state: Literal["firing", "resolved"] = "firing", number: int = 1, **changes: Any
) -> Alert:
    """An alert like those of the engine."""
    fields: dict[str, Any] = {
        "id": f"slow answers/llama3.2/{number}",
        "rule": "slow answers",
        "model": "llama3.2",
        "state": state,
        "severity": "critical",
        "metric": "latency.p95",
        "unit": "s",
        "value": 3.1,
        "limit": 2.0,
        "rises": True,
        "began": NOW,
        "at": NOW,
    }
    return Alert(**(fields | changes))


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError("it did not come to be")


class Hook:
    """A server on loopback that keeps what is posted and answers as told.

    Attributes:
        got: Headers (lower case) and body of each request.
        statuses: What to answer next; 204 when there is no more.
    """

    def __init__(self, port: int = 0) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {key.lower(): value for key, value in self.headers.items()}
                hook.got.append((headers | {"path": self.path}, body))
                self.send_response(hook.statuses.pop(0) if hook.statuses else 204)
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook?team=a"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
