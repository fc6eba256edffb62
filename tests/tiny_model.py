# SPDX-License-Identifier: MIT
"""A model of 1.3 MB made on the spot: real inference at thousands of tokens a second.

Llama architecture, 2 layers, seeded random weights, so its text is nonsense. The
output rows of the control and byte tokens are zero while those of the 3,800 pieces are
random, so sampling never ends a text by chance and every run of `num_predict` tokens
ends with "length".
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import gguf

    from ometrics.demo.engine import ModelEngine

needs_engine = pytest.mark.skipif(
    not (find_spec("xllamacpp") and find_spec("gguf") and find_spec("ollama")),
    reason="xllamacpp, gguf or ollama is not installed",
)
HELLO = [{"role": "user", "content": "hello there"}]
# Tokens of context: an unlimited text takes seconds, so what ends early was cancelled.
LONG = 16_384

VOCABULARY = 4096
WIDTH = 64
LAYERS = 2
HEADS = 4
FEED_FORWARD = 128
CONTEXT = 32_768
SEED = 7

# Plain text around each turn: the model has no special tokens but start and end.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n"
    "{% endfor %}assistant:"
)


def build(path: Path) -> Path:
    """
    Write the model.

    Args:
        path: The GGUF file to write.

    Returns:
        `path`.
    """
    import gguf
    import numpy as np

    random = np.random.default_rng(SEED)
    pieces, kinds = _vocabulary()
    special = sum(kind != gguf.TokenType.NORMAL for kind in kinds)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    # Longer pieces first: SentencePiece merges the pair with the highest score.
    writer.add_token_scores([float(len(piece)) for piece in pieces])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)

    def weights(name: str, rows: int, columns: int, zero_rows: int = 0) -> None:
        values = random.standard_normal((rows, columns)) / columns**0.5
        values[:zero_rows] = 0
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    weights("token_embd", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights(f"blk.{layer}.{part}", WIDTH, WIDTH)
        weights(f"blk.{layer}.ffn_gate", FEED_FORWARD, WIDTH)
        weights(f"blk.{layer}.ffn_up", FEED_FORWARD, WIDTH)
        weights(f"blk.{layer}.ffn_down", WIDTH, FEED_FORWARD)
    norm("output_norm")
    weights("output", VOCABULARY, WIDTH, zero_rows=special)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary() -> tuple[list[str], list[gguf.TokenType]]:
    """Control tokens, the 256 bytes, single characters, then syllables."""
    import gguf

    control = ["<unk>", "<s>", "</s>"]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    single = ["▁", *map(chr, range(ord("!"), ord("~") + 1))]
    first, vowel, last = "bcdfghjklmnpqrstvwxz", "aeiou", "bcdfghjklmnprstvwxyz"
    words = map("".join, product("▁", first, vowel, last))
    ends = map("".join, product(first, vowel, last))
    syllables = [*words, *ends][: VOCABULARY - len(control) - len(raw) - len(single)]
    pieces = control + raw + single + syllables
    kinds += [gguf.TokenType.BYTE] * len(raw)
    kinds += [gguf.TokenType.NORMAL] * (len(single) + len(syllables))
    return pieces, kinds


@contextmanager
def client_of(engine: ModelEngine, transport: Any = None) -> Iterator[Any]:
    """The official client of a running engine, closed at the end."""
    import ollama

    client = ollama.Client(host=engine.url, transport=transport)
    try:
        yield client
    finally:
        client.close()
