# SPDX-License-Identifier: MIT
"""`ometrics diff`: what is compared, and the exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import (
    call,
    export,
    snapshot,
)
from msgspec.structs import replace
from strategies import sample_snapshot

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")
pytest.importorskip("ollama", reason="the extra ollama is not installed")


FAST, SLOW = (0.10,) * 100, (0.12,) * 100


@pytest.mark.parametrize(
    ("old", "new", "limit", "code"),
    [
        ((FAST, 0), (FAST, 0), "0%", 0),
        ((FAST, 0), (SLOW, 0), None, 0),
        ((FAST, 0), (SLOW, 0), "10%", 1),
        ((FAST, 0), (SLOW, 0), "19.9", 1),
        ((FAST, 0), (SLOW, 0), "20.1", 0),
        ((SLOW, 0), (FAST, 0), "0", 0),
        ((FAST, 0), (FAST, 1), "50%", 1),
        ((FAST, 50), (FAST, 52), "10%", 0),
        ((FAST, 50), (FAST, 70), "10%", 1),
        ((FAST, 5), (FAST, 0), "0%", 0),
    ],
)
def test_diff_fails_above_the_limit(
    old: tuple[tuple[float, ...], int],
    new: tuple[tuple[float, ...], int],
    limit: str | None,
    code: int,
    tmp_path: Path,
) -> None:
    """Exit 1 when times or the error rate grew by more than the limit, else 0."""
    files = [
        export(tmp_path / name, snapshot(latencies=latencies, errors=errors))
        for name, (latencies, errors) in (("old.json", old), ("new.json", new))
    ]
    result = call("diff", *files, *([] if limit is None else ["--fail-above", limit]))

    assert code == result.returncode
    assert ("worse" in result.stdout.replace("is worse", "")) == (code == 1)


def test_diff_of_tokens_a_second(tmp_path: Path) -> None:
    """Falling tokens/s are worse, rising ones are not."""
    base = sample_snapshot()
    model = base.models["qwen2.5:0.5b"]
    chat = replace(model.calls["chat"], decode_ns=2 * model.calls["chat"].decode_ns)
    slow = replace(model, calls={**model.calls, "chat": chat})
    slower = export(
        tmp_path / "slower.json",
        replace(base, models={**base.models, model.model: slow}),
    )
    same = export(tmp_path / "same.json", base)

    down = call("diff", same, slower, "--fail-above", "10%")
    up = call("diff", slower, same, "--fail-above", "10%")

    assert (1, 0) == (down.returncode, up.returncode)
    assert "tokens/s: -50.0%" in down.stdout


def test_diff_of_a_lost_model_fails(tmp_path: Path) -> None:
    """What was measured before and is no more is worse; what is new is not."""
    one = export(tmp_path / "one.json", snapshot(model="one"))
    two = export(tmp_path / "two.json", snapshot(model="two"))
    result = call("diff", one, two, "--fail-above", "10%")

    assert 1 == result.returncode
    assert "one is missing" in result.stdout
    assert "two is new" in result.stdout
    assert 0 == call("diff", one, two).returncode


@pytest.mark.parametrize("limit", ["fast", "-1", "nan", "inf", ""])
def test_a_limit_that_is_none_exits_with_2(limit: str, tmp_path: Path) -> None:
    """And the message shows how to write one."""
    path = export(tmp_path / "a.json")
    result = call("diff", path, path, "--fail-above", limit)

    assert 2 == result.returncode
    assert "10%" in result.stderr
