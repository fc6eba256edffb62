"""Every example is run: the programs in `examples/`, the Python in the documents."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ometrics.testing import ScriptedOllama

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What a reader must see in the output of each example.
EXPECTED = {
    "basic_usage.py": "Total Requests: 3",
    "event_monitoring.py": "errors: [('mistral', 'CONNECTION_FAILED')]",
    "many_threads.py": "400,000 of 400,000 records counted",
    "periodic_export.py": "30 requests in metrics.json",
    "reset_windows.py": "together: 600 requests",
    "several_models.py": "qwen3:30b",
}

pytestmark = pytest.mark.skipif(
    not EXAMPLES, reason="the source tree is not here: testing an installed wheel"
)


def run(code: Path, cwd: Path, **environment: str) -> str:
    """The output of a program that must end well."""
    result = subprocess.run(
        # Its default client keeps its connection to the end, which Python remarks on.
        [sys.executable, *("-W", "error", "-W", "ignore::ResourceWarning"), str(code)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (0, "") == (result.returncode, result.stderr)
    return result.stdout


def test_every_example_says_what_it_must_show() -> None:
    """The table above and the directory name the same programs."""
    assert set(EXPECTED) == {path.name for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path: Path, tmp_path: Path) -> None:
    """An example runs without a warning and shows what it is about."""
    assert EXPECTED[path.name] in run(path, tmp_path)


def blocks() -> list[tuple[str, str]]:
    """Every block of Python in the documents, with where it stands."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8") if document.exists() else ""
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((f"{document.name}:{line}", match[1]))
    return found


@pytest.mark.parametrize(
    "code", [pytest.param(code, id=where) for where, code in blocks()]
)
def test_documented_code(code: str, tmp_path: Path) -> None:
    """The Python in a document runs as it stands, against a scripted Ollama."""
    program = tmp_path / "example.py"
    program.write_text(code, encoding="utf-8")
    with ScriptedOllama() as server:
        run(
            program,
            tmp_path,
            OLLAMA_HOST=server.url,
            OPENAI_BASE_URL=server.openai_url,
            OPENAI_API_KEY="unused",
        )
