# SPDX-License-Identifier: MIT
"""`ometrics doctor`, as people and scripts run it."""

from __future__ import annotations

from pathlib import Path

from cli_runs import call, environment, export, snapshot

from ometrics.testing import ScriptedOllama, ps_response


def test_a_problem_is_exit_code_1(tmp_path: Path) -> None:
    """It is named with its numbers and what to do, also at 60 columns."""
    ill = export(tmp_path / "ill.json", snapshot(errors=20))
    result = call("doctor", ill)

    assert 1 == result.returncode
    assert "llama3.2: requests are given up before they are answered" in result.stdout
    assert "because  timeouts 20; 87.0% of the requests" in result.stdout
    narrow = call("doctor", ill, env=environment(COLUMNS="60"))
    lines = narrow.stdout.splitlines()
    assert max(map(len, lines)) <= 60
    assert all(line.startswith("  ") for line in lines[2:] if line)


def test_nothing_wrong_is_exit_code_0(tmp_path: Path) -> None:
    """A model that is well is said to be so, by how many requests."""
    well = export(tmp_path / "well.json", snapshot(latencies=(0.1,) * 50))
    result = call("doctor", well)

    assert (0, "nothing wrong stands out in 50 requests\n") == (
        result.returncode,
        result.stdout,
    )


def test_the_server_is_asked(tmp_path: Path) -> None:
    """With `--ollama` it is known where the model runs."""
    well = export(tmp_path / "well.json", snapshot(latencies=(0.1,) * 50))
    with ScriptedOllama() as server:
        server.script("/api/ps", [ps_response(["llama3.2:latest"])])
        result = call("doctor", well, "--ollama", server.url)
        url = server.url
    away = call("doctor", well, "--ollama", url)

    assert (1, True) == (result.returncode, "runs on the CPU" in result.stdout)
    assert (2, True) == (away.returncode, "no Ollama answers" in away.stderr)
