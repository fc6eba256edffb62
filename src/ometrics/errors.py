# SPDX-License-Identifier: MIT
"""What goes wrong, as codes: the error tree, and the code under which an error counts.

    OllamaError(code, message, cause)
      ErrorTimeout            TIMEOUT
      ErrorConnectionFailed   CONNECTION_FAILED
      ErrorInvalidModel       INVALID_MODEL
      ErrorResourceExhausted  RESOURCE_EXHAUSTED
      ErrorModelNotLoaded     MODEL_NOT_LOADED
      ErrorInvalidRequest     INVALID_REQUEST
    UnknownModelError         a KeyError: a model that was never recorded

Codes are classes of errors, never messages: a message may carry a prompt (law 10).

`code_of` is what `record_error` and `time` use: predefined codes, else class names.
`classify` knows what HTTP clients raise; instrumented clients count under its codes.
To record such an exception by hand: `mc.record_error(model, classify(error))`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` is slow to load
if TYPE_CHECKING:
    from typing import ClassVar, Final

STREAM_ERROR: Final = "STREAM_ERROR"  # an error line after HTTP 200
TRUNCATED: Final = "TRUNCATED"  # an answer that ends without saying that it is done


class OllamaError(Exception):
    """
    A failure of a request to Ollama.

    Args:
        code: Upper-case class of the failure; it becomes the key of `errors`.
        message: For people; never stored by a collector.
        cause: The exception behind it; `str()` shows it in parentheses.
    """

    def __init__(
        self, code: str, message: str, cause: BaseException | None = None
    ) -> None:
        super().__init__(code, message, cause)
        self.code = code
        self.message = message
        self.cause = cause

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        return f"{text} ({self.cause})" if self.cause is not None else text


class _PredefinedError(OllamaError):
    """An `OllamaError` whose code and message the class brings along."""

    code: str  # of the class
    default_message: ClassVar[str]

    def __init__(
        self, message: str | None = None, cause: BaseException | None = None
    ) -> None:
        super().__init__(self.code, message or self.default_message, cause)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.cause)


class ErrorTimeout(_PredefinedError):  # noqa: N818 - the original's name
    """The request took longer than its caller would wait."""

    code = "TIMEOUT"
    default_message = "Request timeout"


class ErrorConnectionFailed(_PredefinedError):  # noqa: N818
    """No connection to the service, or it broke."""

    code = "CONNECTION_FAILED"
    default_message = "Connection to Ollama service failed"


class ErrorInvalidModel(_PredefinedError):  # noqa: N818
    """The service does not know the model."""

    code = "INVALID_MODEL"
    default_message = "Invalid or unknown model"


class ErrorResourceExhausted(_PredefinedError):  # noqa: N818
    """The service has no room for the request."""

    code = "RESOURCE_EXHAUSTED"
    default_message = "Ollama service resources exhausted"


class ErrorModelNotLoaded(_PredefinedError):  # noqa: N818
    """The model could not be loaded."""

    code = "MODEL_NOT_LOADED"
    default_message = "Model not loaded in memory"


class ErrorInvalidRequest(_PredefinedError):  # noqa: N818
    """The service refused the request's parameters."""

    code = "INVALID_REQUEST"
    default_message = "Invalid request parameters"


class UnknownModelError(KeyError):
    """A summary was asked for of a model that has no record."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return f"no requests recorded for model {self.model!r}"


def code_of(error: object) -> str:
    """
    The code under which an error is counted.

    Args:
        error: A code, an exception, or an exception class.

    Returns:
        A string as it is; the `code` of an `OllamaError`; else the class name.

    Raises:
        TypeError: `error` is none of these.
    """
    if isinstance(error, str):
        return error
    if isinstance(error, OllamaError) and isinstance(error.code, str):
        return error.code
    kind = error if isinstance(error, type) else type(error)
    if not issubclass(kind, BaseException):
        raise TypeError(
            f"an error is an exception, its class or a code string, not {error!r}"
        )
    if issubclass(kind, _PredefinedError):
        return kind.code
    return kind.__name__


_FIRST_ERROR: Final = 400
_INTERNAL: Final = 500
# What ollama.ResponseError has for an error line in a stream; openai's has no status
# but is an `APIError` and none of its subclasses.
_NO_STATUS: Final = -1
_STATUS_CODES: Final = {
    400: ErrorInvalidRequest.code,
    404: ErrorInvalidModel.code,
    429: ErrorResourceExhausted.code,
    503: ErrorResourceExhausted.code,
}
# Client libraries are optional, so their exceptions are known by name, bases included:
# httpx and httpx2, openai, aiohttp, requests, urllib3, http.client, asyncio,
# concurrent.futures, and the builtin ones. A timeout is looked for first, because some
# are connection errors too (but urllib3 makes a refused connection a timeout).
_TIMEOUTS: Final = frozenset(
    {"APITimeoutError", "Timeout", "TimeoutError", "TimeoutException"}
)
_BROKEN: Final = frozenset(
    {
        *("APIConnectionError", "ConnectionError", "NetworkError"),
        *("ProxyError", "RemoteProtocolError", "ClientConnectionError"),
        *("ClientPayloadError", "NewConnectionError", "IncompleteRead"),
        *("gaierror", "SSLError"),
    }
)
# What a server says with status 500 when the model could not be loaded.
_LOAD_FAILURES: Final = (
    *("failed to load", "error loading model", "unable to load model"),
    *("error starting", "runner process", "llama runner to start"),
    *("requires more system memory", "model is not loaded", "model not loaded"),
)


def classify(error: BaseException) -> str:
    """
    The code of what a client of Ollama or OpenAI raised.

    Args:
        error: An exception of `ollama`, `openai`, `httpx`, `requests` or Python.

    Returns:
        `INVALID_MODEL` for status 404, `INVALID_REQUEST` for 400, `RESOURCE_EXHAUSTED`
        for 429 and 503, `MODEL_NOT_LOADED` for a 500 that tells of a failure to load,
        `HTTP_<status>` for others; `STREAM_ERROR` for an error line after HTTP 200;
        `TIMEOUT`; `CONNECTION_FAILED` for a refused or broken connection; else as
        `code_of`.
    """
    if isinstance(error, OllamaError):
        return error.code
    names = [kind.__name__ for kind in type(error).__mro__]
    status = _status_of(error)
    code = code_of(error)
    if status is not None and status >= _FIRST_ERROR:
        code = code_of_status(status, str(error) if status == _INTERNAL else "")
    elif not _TIMEOUTS.isdisjoint(names) and "NewConnectionError" not in names:
        code = ErrorTimeout.code
    elif not _BROKEN.isdisjoint(names):
        code = ErrorConnectionFailed.code
    elif status == _NO_STATUS or names[0] == "APIError":
        code = STREAM_ERROR
    return code


def code_of_status(status: int, text: str = "") -> str:
    """
    The code of an HTTP answer that is a failure.

    Args:
        status: From 400 on.
        text: Its body; looked at for what it tells of a load, and not kept.
    """
    if status == _INTERNAL and _is_load_failure(text):
        return ErrorModelNotLoaded.code
    return _STATUS_CODES.get(status, f"HTTP_{status}")


def _status_of(error: BaseException) -> int | None:
    """Ollama's and openai's errors have a status, httpx's have a response with one."""
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_load_failure(text: str) -> bool:
    """Whether the text tells of a load."""
    lowered = text.lower()
    return any(phrase in lowered for phrase in _LOAD_FAILURES)
