# SPDX-License-Identifier: MIT
"""`ometrics diff`: what is compared, and the exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_runs import MODEL, call, environment, export, snapshot
from msgspec.structs import replace

from ometrics import CallMetrics, LatencyHistogram, Snapshot

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
        ((FAST, 0), (FAST, 1), "50%", 0),
        ((FAST, 0), (FAST, 20), "50%", 1),
        ((FAST, 50), (FAST, 52), "10%", 0),
        ((FAST, 50), (FAST, 150), "10%", 1),
        ((FAST, 20), (FAST, 0), "0%", 0),
        ((FAST[:6], 0), (SLOW[:6], 0), "10%", 0),
    ],
)
def test_diff_fails_above_the_limit(
    old: tuple[tuple[float, ...], int],
    new: tuple[tuple[float, ...], int],
    limit: str | None,
    code: int,
    tmp_path: Path,
) -> None:
    """Exit 1 when times or the error rate grew beyond noise and the limit, else 0."""
    files = [
        export(tmp_path / name, snapshot(latencies=latencies, errors=errors))
        for name, (latencies, errors) in (("old.json", old), ("new.json", new))
    ]
    result = call("diff", *files, *([] if limit is None else ["--fail-above", limit]))

    assert code == result.returncode
    assert ("\nworse: " in result.stdout) == (code == 1)


def generating(seconds: float) -> Snapshot:
    """A run of 50 calls of 100 tokens each, generated in so many seconds."""
    call = CallMetrics(
        operation="chat",
        successful_reqs=50,
        latency=LatencyHistogram.of([10.0] * 50),
        decode=LatencyHistogram.of([seconds] * 50),
        decode_tokens=5000,
        decode_ns=round(50 * seconds * 1e9),
    )
    run = snapshot(latencies=(10.0,) * 50)
    return replace(
        run, models={MODEL: replace(run.models[MODEL], calls={"chat": call})}
    )


def test_diff_of_tokens_a_second(tmp_path: Path) -> None:
    """Falling tokens/s are worse, rising ones are not."""
    fast = export(tmp_path / "fast.json", generating(1.0))
    slow = export(tmp_path / "slow.json", generating(2.0))

    down = call("diff", fast, slow, "--fail-above", "10%")
    up = call("diff", slow, fast, "--fail-above", "10%")

    assert (1, 0) == (down.returncode, up.returncode)
    assert "tokens/s: -50.0%" in down.stdout


def test_diff_says_how_much_data_it_takes(tmp_path: Path) -> None:
    """Too few requests for a percentile are no verdict, and no failure."""
    path = export(tmp_path / "a.json", snapshot(latencies=FAST))
    result = call("diff", path, path, "--fail-above", "10%")

    assert 0 == result.returncode
    assert re.search(r"p99 .* too few: 100 of \d+", result.stdout)
    assert "nothing is worse by more than 10%" in result.stdout
    few = export(tmp_path / "few.json", snapshot(latencies=FAST[:2]))
    result = call("diff", few, few, "--fail-above", "10%")
    assert "error rate" in result.stdout


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_diff_fits(columns: int, tmp_path: Path) -> None:
    """What changed and the verdict are seen at 60 columns."""
    old = export(tmp_path / "old.json", generating(1.0))
    new = export(tmp_path / "new.json", generating(2.0))
    result = call("diff", old, new, env=environment(COLUMNS=str(columns)))

    assert columns >= max(map(len, result.stdout.splitlines()))
    assert "-50.0%" in result.stdout
    assert ("worse" in result.stdout) == (columns >= 60)


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
