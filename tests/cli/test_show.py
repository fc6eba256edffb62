# SPDX-License-Identifier: MIT
"""`ometrics show`: a file as tables, in any terminal, whatever its names hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cli_runs import (
    OMETRICS,
    call,
    environment,
    export,
    snapshot,
)
from strategies import HOSTILE_NAME, sample_snapshot

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")
pytest.importorskip("ollama", reason="the extra ollama is not installed")


def test_show_tells_everything(tmp_path: Path) -> None:
    """Tables of models, phases, errors and times, and a histogram with quantiles."""
    result = call("show", export(tmp_path / "a.json", sample_snapshot()))

    assert 0 == result.returncode
    for word in ("qwen2.5:0.5b", "22 requests", "prefill", "TIMEOUT", "█", "◂ p50"):
        assert word in result.stdout
    assert "\x1b" not in result.stdout


def test_show_reads_standard_input(tmp_path: Path) -> None:
    """`-` is a pipe."""
    result = call("show", "-", stdin=snapshot().to_json().decode())

    assert 0 == result.returncode
    assert "3 requests" in result.stdout


def test_names_can_do_no_harm(tmp_path: Path) -> None:
    """Neither escapes for the terminal nor markup for rich in a name have an effect."""
    for name in (HOSTILE_NAME, "[red]x[/nope] :smile: \x9b31m"):
        path = export(tmp_path / "a.json", snapshot(model=name))
        for args in (["show", path], ["diff", path, path]):
            result = call(*args)

            assert 0 == result.returncode
            assert not {"\x1b", "\x9b", "\u202e", "\x00"} & {*result.stdout}
    assert "[red]x[/nope] :smile:" in result.stdout


def test_show_of_one_model_only(tmp_path: Path) -> None:
    """`--model` leaves out the details of others; an unknown one is an error."""
    path = export(tmp_path / "a.json", sample_snapshot())
    one = call("show", path, "--model", "llama3.2")
    unknown = call("show", path, "--model", "gpt")

    assert 1 == one.stdout.count("◂ p50")
    assert 2 == unknown.returncode
    assert "qwen2.5:0.5b" in unknown.stderr


def test_ascii_where_the_encoding_has_no_more(tmp_path: Path) -> None:
    """Blocks and dashes become ASCII, other names are escaped; nothing fails."""
    path = export(tmp_path / "a.json", snapshot(model="modèle"))
    result = call("show", path, env=environment(PYTHONIOENCODING="ascii"))

    assert 0 == result.returncode
    assert result.stdout.isascii()
    assert "####" in result.stdout
    assert "mod\\xe8le" in result.stdout


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 132])
def test_tables_fit(columns: int, tmp_path: Path) -> None:
    """No line is wider than `COLUMNS`, the most important columns stay."""
    path = export(tmp_path / "a.json", sample_snapshot())
    result = call("show", path, env=environment(COLUMNS=str(columns)))

    assert 0 == result.returncode
    assert columns >= max(map(len, result.stdout.splitlines()))
    if columns >= 40:
        assert "p50" in result.stdout
        assert "requests" in result.stdout


@pytest.mark.parametrize("command", ["show", "diff"])
@pytest.mark.parametrize(
    "content", [None, "", "{}", "[1]", "not JSON", '{"schema_version": 99}', "\x00\xff"]
)
def test_unreadable_files_exit_with_2(
    command: str, content: str | None, tmp_path: Path
) -> None:
    """The message names the file, there is no traceback."""
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    good = export(tmp_path / "good.json")
    result = call(command, *([good] if command == "diff" else []), path)

    assert 2 == result.returncode
    assert "broken.json" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """`ometrics show FILE | head -1` ends without a traceback."""
    path = export(tmp_path / "a.json", sample_snapshot())
    with subprocess.Popen(
        [*OMETRICS, "show", str(path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read()

    assert "" == told
