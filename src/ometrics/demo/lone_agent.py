# SPDX-License-Identifier: MIT
"""One agent in a process of its own, which knows nothing of metrics.

For each line on standard input it asks once and answers with a line.
"""

from __future__ import annotations

import sys

from ometrics.demo.server import EngineServer

QUESTION = "Write one short sentence about {}."


def main(host: str, model: str, topic: str) -> None:
    """
    Ask until standard input ends.

    Args:
        host: Address of the server; empty for the client's default.
        model: Which model.
        topic: What to ask about.
    """
    client = EngineServer(model, host or None, "").client()
    message = {"role": "user", "content": QUESTION.format(topic)}
    for _ in sys.stdin:
        for _ in client.chat(model, [message], stream=True, options={"num_predict": 9}):
            pass
        sys.stdout.write("asked\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
