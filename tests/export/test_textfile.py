"""The page as a file for node_exporter."""

from __future__ import annotations

from pathlib import Path

import pytest
from strategies import sample_snapshot

from ometrics.export import textfile
from ometrics.export.prometheus import render


def test_the_file_is_the_text_page(tmp_path: Path) -> None:
    """One file with the page, and nothing left beside it that would be read too."""
    snapshot = sample_snapshot()
    path = tmp_path / "ometrics.prom"
    textfile.write(snapshot, path)
    textfile.write(snapshot, path)

    assert render(snapshot) == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_a_temporary_file_is_never_one_that_node_exporter_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-written `*.prom` would be scraped; until renamed it has another name."""
    seen: list[str] = []
    monkeypatch.setattr(
        "os.fsync", lambda _: seen.extend(p.name for p in tmp_path.iterdir())
    )
    textfile.write(sample_snapshot(), tmp_path / "ometrics.prom")

    assert not seen[0].endswith(".prom")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    """node_exporter would ignore the file without a word."""
    with pytest.raises(ValueError, match=r"ometrics\.txt' must end in \.prom"):
        textfile.write(sample_snapshot(), tmp_path / "ometrics.txt")
