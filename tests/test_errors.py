# SPDX-License-Identifier: MIT
"""The error tree and the codes under which errors count."""

from __future__ import annotations

import copy
import pickle

import pytest

from ometrics import errors
from ometrics.errors import OllamaError, UnknownModelError, code_of

TABLE = {
    errors.ErrorTimeout: ("TIMEOUT", "Request timeout"),
    errors.ErrorConnectionFailed: (
        "CONNECTION_FAILED",
        "Connection to Ollama service failed",
    ),
    errors.ErrorInvalidModel: ("INVALID_MODEL", "Invalid or unknown model"),
    errors.ErrorResourceExhausted: (
        "RESOURCE_EXHAUSTED",
        "Ollama service resources exhausted",
    ),
    errors.ErrorModelNotLoaded: ("MODEL_NOT_LOADED", "Model not loaded in memory"),
    errors.ErrorInvalidRequest: ("INVALID_REQUEST", "Invalid request parameters"),
}


@pytest.mark.parametrize("kind", TABLE)
def test_predefined_errors(kind: type[OllamaError]) -> None:
    """Code, message and text are the original's; the class alone has the code too."""
    code, message = TABLE[kind]
    error = kind()

    assert (code, message, None) == (error.code, error.message, error.cause)
    assert f"{code}: {message}" == str(error)
    assert [code, code] == [code_of(kind), code_of(error)]


def test_text_with_a_cause() -> None:
    """The cause stands in parentheses behind the message."""
    error = errors.ErrorTimeout(cause=OSError("no route"))

    assert "TIMEOUT: Request timeout (no route)" == str(error)


def test_own_message_keeps_the_code() -> None:
    """A predefined error may bring its own message."""
    error = errors.ErrorTimeout("after 5 s")

    assert "TIMEOUT: after 5 s" == str(error)


def test_own_code() -> None:
    """Any code can be made, with or without a cause."""
    assert "HTTP_502: Bad gateway" == str(OllamaError("HTTP_502", "Bad gateway"))
    assert "A: b (c)" == str(OllamaError("A", "b", ValueError("c")))


@pytest.mark.parametrize(
    "error",
    [
        OllamaError("A", "b", None),
        errors.ErrorTimeout(),
        errors.ErrorTimeout("late"),
        UnknownModelError("m"),
    ],
)
def test_errors_pickle_and_copy(error: Exception) -> None:
    """An error crosses process borders unchanged."""
    copies = [pickle.loads(pickle.dumps(error)), copy.copy(error)]

    assert [(type(error), str(error))] * 2 == [(type(c), str(c)) for c in copies]


def test_other_exceptions_count_under_their_class() -> None:
    """Never under their message, which may hold a prompt."""
    assert "ValueError" == code_of(ValueError("secret prompt"))
    assert "ValueError" == code_of(ValueError)
    assert "KeyboardInterrupt" == code_of(KeyboardInterrupt())
    assert "OWN" == code_of("OWN")
    assert "HTTP_500" == code_of(OllamaError("HTTP_500", "x"))
    assert "OllamaError" == code_of(OllamaError)


def test_subclasses_count_under_the_code() -> None:
    """A user's subclass of a predefined error keeps the code."""

    class Late(errors.ErrorTimeout):
        """A user's own."""

    assert ["TIMEOUT", "TIMEOUT"] == [code_of(Late), code_of(Late())]


@pytest.mark.parametrize("nothing", [None, 5, object(), int, b"TIMEOUT"])
def test_what_is_no_error(nothing: object) -> None:
    """A wrong type is a bug to see in development."""
    with pytest.raises(TypeError, match="an error is an exception"):
        code_of(nothing)


def test_unknown_model_is_a_key_error() -> None:
    """It names the model, without `KeyError`'s habit of quoting the whole message."""
    error = UnknownModelError("llama")

    assert isinstance(error, KeyError)
    assert "no requests recorded for model 'llama'" == str(error)
