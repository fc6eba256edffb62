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
"""

from __future__ import annotations

from typing import ClassVar


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

    code: ClassVar[str]  # type: ignore[misc]
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
    if isinstance(error, OllamaError):
        return error.code
    kind = error if isinstance(error, type) else type(error)
    if not issubclass(kind, BaseException):
        raise TypeError(
            f"an error is an exception, its class or a code string, not {error!r}"
        )
    if issubclass(kind, _PredefinedError):
        return kind.code
    return kind.__name__
