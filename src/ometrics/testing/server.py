"""
A model server on loopback that does what its script says and keeps a log.

Thread safety: one lock, `_changed` (a condition), protects scripts, log and the set of
connections; it is never held while a script runs or a socket blocks. Each connection
has a daemon thread. Every public method may be called from any thread.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ._connection import ClientGoneError, Connection
from ._defaults import Defaults
from ._request import Request
from .steps import Script, as_step

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

#: Seconds that `close` waits for a script that is stuck in the test's own code.
_PATIENCE_S = 2.0


class ScriptedOllama:
    """
    An Ollama server, and an OpenAI-compatible one, that a test controls.

    It listens from construction to `close()`. Without scripts it answers `/api/chat`,
    `/api/generate`, `/api/embed`, `/api/embeddings`, `/api/tags`, `/api/ps`,
    `/api/version`, `/v1/chat/completions` and `/v1/embeddings` as a healthy server
    does; streams go out in one write, as fast as the client reads.

    Args:
        answer: What it says, one string a chunk.
        models: The models it has; others get a 404. None means any.
        history: How many requests the log keeps; the oldest go first.

    Attributes:
        host: Address it listens on.
        port: Port it listens on.
        url: For `ollama.Client(host=...)`.
        openai_url: For `openai.OpenAI(base_url=...)`.
        errors: What scripts raised; the client got a 500 or a broken connection.

    Example:
        with ScriptedOllama() as server:
            server.script("/api/chat", [Status(503, {"error": "server busy"})])
            server.queue("/api/generate", [Reset()], [generate_response("second try")])
    """

    def __init__(
        self,
        *,
        answer: Sequence[str] = ("Hello", ",", " world", "!"),
        models: Sequence[str] | None = None,
        history: int = 10_000,
    ) -> None:
        self._defaults = Defaults(answer, models)
        self._changed = threading.Condition()
        self._scripts: dict[str, Script] = {}
        self._queues: dict[str, deque[Script]] = {}
        self._log: deque[Request] = deque(maxlen=history)
        self._threads: dict[Connection, threading.Thread] = {}
        self._held: list[socket.socket] = []
        self._closing = False
        self._accepted = 0
        self.errors: list[Exception] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.host, self.port = self._listener.getsockname()
        self.url = f"http://{self.host}:{self.port}"
        self.openai_url = f"{self.url}/v1"
        self._acceptor = threading.Thread(
            target=self._accept, name="scripted-ollama", daemon=True
        )
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if error is None and self.errors:
            raise RuntimeError("a script of the server failed") from self.errors[0]

    def script(self, path: str, script: Script) -> None:
        """
        Answer every request to a path by a script.

        Args:
            path: For instance `/api/chat`.
            script: Steps, or a callable that gets the `Request` and returns or yields
                steps. A fixed script of an unstreamed answer is sent with
                `Content-Length`; one that is streamed or yielded comes chunked.
        """
        _check(script)
        with self._changed:
            self._scripts[path] = script

    def queue(self, path: str, *scripts: Script) -> None:
        """Answer the next requests to a path by one script each, then as before."""
        for script in scripts:
            _check(script)
        with self._changed:
            self._queues.setdefault(path, deque()).extend(scripts)

    @property
    def requests(self) -> Sequence[Request]:
        """The requests so far, oldest first; each is updated as it is answered."""
        with self._changed:
            return tuple(self._log)

    @property
    def hanging(self) -> int:
        """How many answers stand at a `Hang`."""
        with self._changed:
            return len(self._held)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._changed:
            return len(self._threads)

    def release(self) -> None:
        """Let every answer that stands at a `Hang` now go on."""
        with self._changed:
            for waker in self._held:
                waker.send(b"\0")
            self._held.clear()

    def wait_for(
        self, condition: Callable[[ScriptedOllama], object], timeout: float = 5.0
    ) -> None:
        """
        Wait until something is true of the server.

        Args:
            condition: Gets the server; looked at again whenever a request comes in,
                hangs or ends and a connection closes.
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: It did not become true.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                outcomes = [request.outcome for request in self._log]
                raise TimeoutError(f"not within {timeout} s; requests: {outcomes}")

    def wait_for_requests(self, count: int = 1, timeout: float = 5.0) -> None:
        """Wait until that many requests have come in, answered or not."""
        self.wait_for(lambda server: len(server.requests) >= count, timeout)

    def wait_until_idle(self, timeout: float = 5.0) -> None:
        """Wait until no answer is under way, so that every `outcome` is final."""
        self.wait_for(
            lambda server: all(r.outcome != "running" for r in server.requests), timeout
        )

    def wait_for_disconnect(self, timeout: float = 5.0) -> Request:
        """Wait for a client to go away before its answer ended; return its request."""

        def left() -> list[Request]:
            return [request for request in self.requests if request.disconnected]

        self.wait_for(lambda _: left(), timeout)
        return left()[0]

    def close(self) -> None:
        """
        Stop: cut every connection, hung ones too, and refuse new ones.

        May be called again. Returns when the threads have ended, at the latest after
        two seconds when a script is stuck in code of its own.
        """
        with self._changed:
            if self._closing:
                return
            self._closing = True
            for connection in self._threads:
                connection.shutdown()
            threads = list(self._threads.values())
        # No portable call wakes `accept`, but a connection does.
        with suppress(OSError):
            socket.create_connection((self.host, self.port), timeout=1.0).close()
        deadline = time.monotonic() + _PATIENCE_S
        for thread in (self._acceptor, *threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # the client left before its turn, or no descriptor is free
                time.sleep(0.01)
                continue
            with self._changed:
                if self._closing:
                    sock.close()
                    return
                connection = Connection(sock, self._accepted, self._holding)
                self._accepted += 1
                thread = threading.Thread(
                    target=self._serve,
                    args=(connection,),
                    name=f"scripted-ollama-{self._accepted}",
                    daemon=True,
                )
                self._threads[connection] = thread
                thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            while request := connection.read_request():
                if not self._answer(connection, request):
                    break
        finally:
            with self._changed:
                connection.close()
                del self._threads[connection]
                self._changed.notify_all()

    def _answer(self, connection: Connection, request: Request) -> bool:
        with self._changed:
            self._log.append(request)
            self._changed.notify_all()
        try:
            return connection.play(request, self._next_script(request.path))
        except ClientGoneError:
            request.outcome = "cut" if self._closing else "disconnected"
        except Exception as error:  # noqa: BLE001 - the test's own code failed
            self.errors.append(error)
            request.outcome = "cut"
        finally:
            with self._changed:
                self._changed.notify_all()
        return False

    def _next_script(self, path: str) -> Script:
        with self._changed:
            queue = self._queues.get(path)
            if queue:
                return queue.popleft()
            return self._scripts.get(path, self._defaults.reply)

    @contextmanager
    def _holding(self) -> Iterator[socket.socket]:
        waiting, waker = socket.socketpair()
        with waiting, waker:
            with self._changed:
                self._held.append(waker)
                self._changed.notify_all()
            try:
                yield waiting
            finally:
                with self._changed:
                    if waker in self._held:
                        self._held.remove(waker)


def _check(script: Script) -> None:
    """Raise `TypeError` where the script is written, not where it is played."""
    if not callable(script):
        for piece in script:
            as_step(piece)
