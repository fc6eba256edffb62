# SPDX-License-Identifier: MIT
"""Rules over one file, from the library and from the command."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cli_runs import call, export, snapshot
from msgspec.structs import replace

from ometrics import MetricsCollector, Snapshot
from ometrics.rules import Objective, Rule, expect
from ometrics.rules.check import check

RULES = """\
[[rule]]
name = "slow answers"
metric = "latency.p95"
above = "250ms"

[[rule]]
name = "late chunks"
metric = "time_to_first_chunk.p95"
above = "1s"

[[objective]]
name = "quick"
metric = "latency"
within = "250ms"
target = 0.5
"""


def verdicts(rules: list[Rule | Objective], over: Snapshot) -> list[tuple[str, str]]:
    """What came of each rule."""
    return [(result.name, result.verdict) for result in check(rules, over)]


def test_each_verdict() -> None:
    """A number is good, bad, or unknown; unknown is not good."""
    rules = [
        Rule("a", "latency.p95", above="250ms"),
        Rule("b", "latency.p95", above="1s"),
        Rule("c", "time_to_first_chunk.p95", above="1s"),
        Rule("d", "latency.p95", above="1s", min_requests=4),
        Rule("e", "latency.p95", above="1s", model="qwen*"),
        Objective("f", "latency", within="250ms", target=0.5),
        Objective("g", "latency", within="250ms", target=0.9),
    ]

    assert [
        *(("a", "failed"), ("b", "ok"), ("c", "missing"), ("d", "missing")),
        *(("e", "missing"), ("f", "ok"), ("g", "failed")),
    ] == verdicts(rules, snapshot())


def test_how_much() -> None:
    """A failure says by how many percent of the bound."""
    (result,) = check([expect("latency.max < 200ms")], snapshot())

    assert pytest.approx(50.0, abs=1.2) == result.excess


def test_the_command_says_what_failed(tmp_path: Path) -> None:
    """The table has the worst first, and the exit code is 1."""
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES, encoding="utf-8")
    result = call("check", export(tmp_path / "run.json"), "--rules", rules)

    words = [line.split()[0] for line in result.stdout.splitlines()[2:5]]
    assert (1, ["slow", "late", "quick"]) == (result.returncode, words)
    assert result.stdout.endswith("1 failed, 1 no data, 1 ok\n")


def test_the_command_succeeds(tmp_path: Path) -> None:
    """What holds is exit code 0."""
    result = call(
        *("check", export(tmp_path / "run.json"), "-e", "latency.p95 < 1s"),
        *("-e", "errors == 0"),
    )

    assert (0, "2 ok\n") == (result.returncode, result.stdout[-5:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what must hold"),
        (["-e", "latencyy.p95 < 1s"], "did you mean 'latency.p95'"),
        (["--rules", "none.toml"], "none.toml: No such file"),
        (["--rules", "{file}"], "not TOML"),
    ],
)
def test_wrong_use(tmp_path: Path, arguments: list[str], message: str) -> None:
    """Wrong arguments and files are exit code 2 and say what to do."""
    file = export(tmp_path / "run.json")
    result = call(
        "check", file, *(a.format(file=file) for a in arguments), cwd=tmp_path
    )

    assert 2 == result.returncode
    assert message in result.stderr.replace("\n", " ")


def test_the_rules_commands(tmp_path: Path) -> None:
    """A file can be checked and shown, and its metrics are listed."""
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES, encoding="utf-8")
    checked = call("rules", "check", rules)
    shown = call("rules", "show", rules)
    metrics = call("rules", "metrics")

    assert f"{rules}: 2 rules, 1 objective, ok\n" == checked.stdout
    assert "latency.p95 of each model above 250ms over 5m" in shown.stdout
    assert "time_to_first_chunk.p95" in metrics.stdout


def test_rules_test_replays_exports(tmp_path: Path) -> None:
    """Successive exports say when an incident would have begun and ended."""
    from ometrics.testing import FakeClock

    clock = FakeClock()
    collector = MetricsCollector(clock=clock)
    files = []
    for minute, latency in enumerate([0.1, 3.0, 3.0, 0.1, 0.1]):
        clock.advance(60)
        collector.record_latency("m", latency)
        files.append(tmp_path / f"{minute}.json")
        collector.export_json_to_file(files[-1])
    rules = tmp_path / "rules.toml"
    rules.write_text(
        "[[rule]]\nname = 'slow'\nmetric = 'latency.max'\nabove = '1s'\n"
        "over = '1m'\nfor = '1m'\n",
        encoding="utf-8",
    )
    result = call("rules", "test", rules, *files)
    half = call("rules", "test", rules, *files[:3])
    backwards = call("rules", "test", rules, *reversed(files))

    assert [["firing", "slow:"], ["resolved", "slow:"]] == [
        line.split()[2:4] for line in result.stdout.splitlines()[:2]
    ]
    assert (0, 1, 2) == (result.returncode, half.returncode, backwards.returncode)
    assert "give files in the order" in backwards.stderr


def test_rules_test_replays_a_history(tmp_path: Path) -> None:
    """Its windows say the same as exports at their ends would."""
    pytest.importorskip("sqlalchemy", reason="the extra store is not installed")
    import ometrics.store
    from ometrics.store.rows import Window, microseconds

    path, rules = tmp_path / "metrics.db", tmp_path / "rules.toml"
    begin = datetime(2026, 11, 24, 9, tzinfo=timezone.utc)
    with ometrics.store.open(path) as store:
        for minute, latency in enumerate([0.1, 3.0, 3.0, 3.0, 0.1, 0.1, 0.1]):
            collector = MetricsCollector()
            collector.record_latency("m", latency)
            times = [begin + timedelta(minutes=minute + i) for i in (0, 1)]
            counts = replace(
                collector.snapshot(), start_time=times[0], collection_time=times[1]
            )
            window = Window(*map(microseconds, times), counts)
            store.write("i", minute + 1, window)
    rules.write_text(
        "[[rule]]\nname = 'slow'\nmetric = 'latency.max'\nabove = '1s'\n"
        "over = '1m'\nfor = '1m'\n",
        encoding="utf-8",
    )
    result = call("rules", "test", rules, path)

    assert [
        ["2026-11-24", "09:03:00Z", "firing", "slow:"],
        ["2026-11-24", "09:06:00Z", "resolved", "slow:"],
    ] == [line.split()[:4] for line in result.stdout.splitlines()[:2]]
    assert 0 == result.returncode


def test_rules_test_tries_a_series() -> None:
    """Numbers that are made up; what is no series is wrong usage."""
    series = "error_rate = 0x5 50x5"
    result = call("rules", "test", "default", "--series", series)
    wrong = call("rules", "test", "default", "--series", "error_rate = lots")
    neither = call("rules", "test", "default")

    assert "firing   requests fail: error_rate of a model is 50" in result.stdout
    assert (1, 2, 2) == (result.returncode, wrong.returncode, neither.returncode)
    assert "'lots' is no limit for error_rate" in wrong.stderr


def test_the_default_rules() -> None:
    """They are accepted, and can be shown, checked and written for Prometheus."""
    shown = call("rules", "show", "default")
    written = call("rules", "show", "default", "--prometheus")

    assert "error_rate of each model above 5.0% over 5m for 1m" in shown.stdout
    assert 'alert: "server unreachable"' in written.stdout


def test_run_says_when_a_rule_is_broken(tmp_path: Path) -> None:
    """Alerts of a program go to standard error, even if it ends at once."""
    rules = tmp_path / "rules.toml"
    rules.write_text(
        "[[rule]]\nname = 'any'\nmetric = 'errors'\nabove = 0\n", encoding="utf-8"
    )
    program = tmp_path / "agent.py"
    program.write_text(
        "import ometrics.collector, gc\n"
        "for one in gc.get_objects():\n"
        "    if type(one) is ometrics.collector.MetricsCollector:\n"
        "        one.record_error('llama3.2', 'TIMEOUT')\n",
        encoding="utf-8",
    )
    result = call("run", "--rules", rules, program)
    wrong = call("run", "--rules", tmp_path / "none.toml", program)

    assert "ometrics: firing any: errors of llama3.2 is 1, above 0" in result.stderr
    assert (0, 2) == (result.returncode, wrong.returncode)
