"""
What a test of metrics needs: a clock that stands still, a model server that obeys.

`FakeClock` replaces time. `ScriptedOllama` is an HTTP server on loopback that speaks
Ollama's API and OpenAI's, sends exactly the bytes a script tells it, when it tells
it, and remembers what it was asked:

    from ometrics.testing import Delay, ScriptedOllama, chat_chunk, chat_done

    with ScriptedOllama() as server:
        server.script(
            "/api/chat",
            [chat_chunk("Hel"), Delay(0.02), chat_chunk("lo"), chat_done(eval_count=2)],
        )
        client = ollama.Client(host=server.url)
        ...

    assert "llama3.2" == server.requests[0].json["model"]

Needs the standard library only, and nothing of it is loaded by `import ometrics`.
"""

from ._request import Request
from .clock import FakeClock
from .payloads import (
    OPENAI_DONE,
    chat_chunk,
    chat_done,
    chat_response,
    created_at,
    embed_response,
    embeddings_response,
    generate_chunk,
    generate_done,
    generate_response,
    openai_chunk,
    openai_embeddings,
    openai_response,
    openai_usage,
    ps_response,
    tags_response,
)
from .server import ScriptedOllama
from .steps import (
    Close,
    Delay,
    Event,
    Hang,
    Line,
    Piece,
    Raw,
    Reset,
    Script,
    Send,
    Split,
    Status,
    Step,
    Together,
)

__all__ = [
    "OPENAI_DONE",
    "Close",
    "Delay",
    "Event",
    "FakeClock",
    "Hang",
    "Line",
    "Piece",
    "Raw",
    "Request",
    "Reset",
    "Script",
    "ScriptedOllama",
    "Send",
    "Split",
    "Status",
    "Step",
    "Together",
    "chat_chunk",
    "chat_done",
    "chat_response",
    "created_at",
    "embed_response",
    "embeddings_response",
    "generate_chunk",
    "generate_done",
    "generate_response",
    "openai_chunk",
    "openai_embeddings",
    "openai_response",
    "openai_usage",
    "ps_response",
    "tags_response",
]
