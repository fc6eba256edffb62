# SPDX-License-Identifier: MIT
"""Type-checks, strictly, every example and every block of Python in the documents.

Run by `make lint`: who pastes a block into a checked program must see no error.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def write_blocks(folder: Path) -> list[Path]:
    """Write each block to a file named after its document and line."""
    files = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 2
            path = folder / f"{document.stem}_line_{line}.py"
            path.write_text(match[1], encoding="utf-8")
            files.append(path)
    return files


def main() -> int:
    """Check; the exit code is mypy's."""
    with tempfile.TemporaryDirectory() as folder:
        blocks = write_blocks(Path(folder))
        examples = sorted((ROOT / "examples").glob("*.py"))
        print(f"check_documents: {len(blocks)} blocks, {len(examples)} examples")
        command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
        # From the folder: paths of the errors are then short, and so is `src`.
        return subprocess.run(
            [*command, "--config-file", ROOT / "pyproject.toml", *blocks, *examples],
            cwd=ROOT,
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
