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
# What a block prints, if that is shown right below it.
OUTPUT = re.compile(r"\n\n((?:    .*\n)+)")

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


def blocks() -> list[tuple[str, str, str | None]]:
    """Every block of Python in the documents: where it stands, and what it prints."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8") if document.exists() else ""
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            shown = OUTPUT.match(text, match.end())
            output = None if shown is None else re.sub("(?m)^    ", "", shown[1])
            found.append((f"{document.name}:{line}", match[1], output))
    return found


@pytest.mark.parametrize(
    ("code", "output"),
    [pytest.param(code, output, id=where) for where, code, output in blocks()],
)
def test_documented_code(code: str, output: str | None, tmp_path: Path) -> None:
    """
    The Python in a document runs as it stands, against a scripted Ollama.

    It prints what the document says below it.
    """
    program = tmp_path / "example.py"
    program.write_text(code, encoding="utf-8")
    with ScriptedOllama() as server:
        printed = run(
            program,
            tmp_path,
            OLLAMA_HOST=server.url,
            OPENAI_BASE_URL=server.openai_url,
            OPENAI_API_KEY="unused",
        )
    if output is not None:
        assert output == printed
