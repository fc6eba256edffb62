# SPDX-License-Identifier: MIT
"""`docs/proxy.md`: what it tells readers of other languages works as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from proxying import counted

from ometrics import MetricsCollector
from ometrics.proxy import Proxy

DOCUMENT = Path(__file__).parents[2] / "docs" / "proxy.md"
TEXT = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
BLOCK = re.compile(r"^```(sh|js)\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not TEXT, reason="needs the source tree")


def _run(proxy: Proxy, *command: str, cwd: Path | None = None) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy")
    }
    environment |= {
        "OLLAMA_HOST": proxy.url,
        "OPENAI_BASE_URL": f"{proxy.url}/v1",
    }
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def _blocks(language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(TEXT) if found == language]


@pytest.mark.parametrize("code", _blocks("sh"))
def test_shell(proxy: Proxy, collector: MetricsCollector, code: str) -> None:
    """A line for a shell."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")

    assert '"Hello"' in _run(proxy, "sh", "-c", code)
    assert (1, 0, 0) == counted(collector)


@pytest.mark.parametrize("code", _blocks("js"))
def test_javascript(
    proxy: Proxy, collector: MetricsCollector, node_packages: Path, code: str
) -> None:
    """A program for Node, with a client from npm."""
    said = _run(proxy, "node", "--input-type=module", "-e", code, cwd=node_packages)

    assert "Hello, world!" == said.strip()
    assert (1, 0, 0) == counted(collector)


def test_the_two_lines() -> None:
    """Both variables stand at the top, with the command's own address."""
    head = TEXT.partition("```")[0]

    assert "export OLLAMA_HOST=http://127.0.0.1:11435 " in head
    assert "export OPENAI_BASE_URL=http://127.0.0.1:11435/v1 " in head
