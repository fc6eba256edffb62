# SPDX-License-Identifier: MIT
"""One definition, two engines: Prometheus's own tools say what ours say.

`promtool` runs the written rules over series that our engine sees as well.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ometrics import CallMetrics, MetricsCollector, PerformanceMetrics, Snapshot
from ometrics.export import prometheus as exposition
from ometrics.export.names import METRICS
from ometrics.rules import Engine, Objective, Rule, attained, quantities
from ometrics.rules.prometheus import rules_file
from ometrics.rules.promql import _regex
from ometrics.rules.replay import replay
from ometrics.testing import FakeClock

PROMTOOL = shutil.which("promtool")
BEGIN = datetime(1970, 1, 1, tzinfo=timezone.utc)
EMPTY = MetricsCollector().snapshot()
STEP = 15  # seconds between samples
JOB = 'job="agents", instance="a"'

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(PROMTOOL is None, reason="no promtool on the path"),
]


def promtool(directory: Path, *arguments: str) -> str:
    """Output of a run that must succeed."""
    done = subprocess.run(
        [str(PROMTOOL), *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert 0 == done.returncode, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def run_tests(
    directory: Path, rules: Iterable[Rule | Objective], tests: list[dict[str, Any]]
) -> None:
    """`promtool test rules`; its files are JSON, which is YAML too."""
    (directory / "rules.yml").write_text(rules_file(rules), encoding="utf-8")
    document = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{STEP}s",
        "tests": tests,
    }
    (directory / "test.yml").write_text(json.dumps(document), encoding="utf-8")
    promtool(directory, "test", "rules", "test.yml")


def expectation(rule: Rule, second: int, *, firing: bool) -> dict[str, Any]:
    """What promtool must find of a rule at a second."""
    labels = {
        "severity": rule.severity,
        "job": "agents",
        "gen_ai_request_model": "m",
        "rule": rule.name,
    }
    found = [{"exp_labels": labels, "exp_annotations": annotations(rule)}]
    return {
        "eval_time": f"{second}s",
        "alertname": rule.name,
        "exp_alerts": found if firing else [],
    }


def annotations(rule: Rule) -> dict[str, str]:
    """The sentence of an alert."""
    text = re.findall(r'summary: ("(?:.*)")', rules_file([rule]))[-1]
    return {
        "summary": json.loads(text).replace("{{ $labels.gen_ai_request_model }}", "m")
    }


def test_every_number_makes_a_rule(tmp_path: Path) -> None:
    """Prometheus accepts a rule of every number there is, and of objectives."""
    rules: list[Rule | Objective] = [
        Rule(name, name, above=1, for_="1m", min_requests=3) for name in quantities()
    ]
    rules += [
        Rule("quotes \"'{{}}\\", 'errors.A"B', above=1, clear=0, model='a"b*'),
        Objective("success", target=0.999, model="llama[!3]?"),
        Objective("quick", "latency", within="1s", target=0.9),
        Objective("first", "time_to_first_chunk", within="300ms", operation="chat"),
    ]
    (tmp_path / "rules.yml").write_text(rules_file(rules), encoding="utf-8")

    assert "SUCCESS" in promtool(tmp_path, "check", "rules", "rules.yml")


def test_the_series_are_those_of_the_table() -> None:
    """Every selector names a series that our pages have."""
    text = rules_file([Rule(name, name, above=1) for name in quantities()])
    named = set(re.findall(r"\b((?:ometrics|gen_ai_client)_\w+?)[{\[)]", text))
    exported = {metric.prometheus for metric in METRICS}
    parts = {name + part for name in exported for part in ("_sum", "_count", "_bucket")}

    assert set() == named - exported - parts


@pytest.mark.parametrize(
    ("pattern", "regex"),
    [("llama3*", r"llama3.*"), ("a.b?", r"a\.b."), ("[!ab]*", "[^ab].*"), ("[", r"\[")],
)
def test_patterns(pattern: str, regex: str) -> None:
    """A shell pattern becomes a regular expression of RE2."""
    assert regex == _regex(pattern)


# --- the state machine


def in_flight(value: int | None) -> Snapshot:
    """A snapshot with so many calls running; `None` for a model that is not there."""
    call = CallMetrics(operation="chat", in_flight=value or 0)
    model = PerformanceMetrics(model="m", calls={"chat": call})
    return Snapshot(
        instance_id=EMPTY.instance_id,
        start_time=EMPTY.start_time,
        collection_time=EMPTY.collection_time,
        uptime_seconds=1.0,
        models={} if value is None else {"m": model},
    )


def ours(rule: Rule, values: Sequence[int | None]) -> list[bool]:
    """Whether our engine has an incident at each sample."""
    engine, firing, found = Engine([rule]), False, []
    for index, value in enumerate(values):
        snapshot, second = in_flight(value), index * STEP
        for alert in engine.evaluate(
            lambda _, now=snapshot: now,
            now=second,
            at=BEGIN + timedelta(seconds=second),
        ):
            firing = alert.state == "firing"
        found.append(firing)
    return found


def values_of(rng: random.Random) -> list[int | None]:
    """A random series that stays where it is for a while, now and then."""
    values: list[int | None] = []
    while len(values) < 60:
        values += [rng.choice([0, 5, 7, 10, 11, 20, None])] * rng.choice([1, 1, 2, 5])
    return values[:60]


def test_incidents_are_the_same_over_random_series(tmp_path: Path) -> None:
    """At every one of 2,400 evaluations both have the incident, or neither has."""
    rng = random.Random(12)
    rules = [
        Rule("plain", "in_flight", above=10),
        Rule("held", "in_flight", above=10, for_="30s"),
        Rule("slow to clear", "in_flight", above=10, clear=5, clear_for="45s"),
        Rule("both", "in_flight", above=10, clear=5, for_="30s", clear_for="60s"),
        Rule("below", "in_flight", below=7, clear=10, for_="15s"),
    ]
    tests, incidents = [], 0
    for _ in range(8):
        values = values_of(rng)
        expected = {rule.name: ours(rule, values) for rule in rules}
        incidents += sum(map(any, expected.values()))
        tests.append(
            {
                "interval": f"{STEP}s",
                "input_series": [
                    {
                        "series": f"ometrics_call_in_flight{{{JOB},"
                        ' gen_ai_request_model="m"}',
                        "values": " ".join(
                            "stale" if value is None else str(value) for value in values
                        ),
                    }
                ],
                "alert_rule_test": [
                    expectation(rule, index * STEP, firing=firing)
                    for rule in rules
                    for index, firing in enumerate(expected[rule.name])
                ],
            }
        )

    assert incidents > 20
    run_tests(tmp_path, rules, tests)


# --- windows of counters and histograms


def history(rng: random.Random) -> list[Snapshot]:
    """Snapshots of a collector that is well, then ill, then idle, then well."""
    clock = FakeClock()
    collector = MetricsCollector(clock=clock)
    collector.record_latency("m", 0.1)
    collector.record_error("m", "TIMEOUT")
    snapshots = [collector.snapshot()]
    moods = [*("well",) * 12, *("ill",) * 16, *("idle",) * 14, *("well",) * 12]
    for mood in moods:
        for _ in range(0 if mood == "idle" else rng.randint(5, 30)):
            if mood == "ill" and rng.random() < 0.4:
                collector.record_error("m", "TIMEOUT")
            else:
                # Far from the limit: classic buckets are coarse.
                slow = mood == "ill" and rng.random() < 0.5
                collector.record_latency("m", 8.0 if slow else 0.12)
        clock.advance(STEP)
        snapshots.append(collector.snapshot())
    return snapshots


_WATCHED = ("ometrics_requests_total", "ometrics_request_duration_seconds")


def series_of(snapshots: Sequence[Snapshot]) -> list[dict[str, str]]:
    """The series of our own text page, as promtool reads them."""
    lines: dict[str, list[str]] = {}
    for snapshot in snapshots:
        page = exposition.render(snapshot, exposition.TEXT).decode()
        for line in page.splitlines():
            if line.startswith(_WATCHED):
                name, _, value = line.rpartition(" ")
                lines.setdefault(name, []).append(value)
    return [
        {"series": name.replace("{", f"{{{JOB},", 1), "values": " ".join(values)}
        for name, values in lines.items()
    ]


def test_windows_are_the_same(tmp_path: Path) -> None:
    """Ratios, quantiles and minimum counts fire at the same sample from real pages."""
    snapshots = history(random.Random(3))
    rules = [
        Rule("errors", "error_rate", above=10, over="1m", for_="30s", clear_for="1m"),
        Rule("slow", "latency.p95", above="2s", over="1m", clear_for="30s"),
        Rule("mean", "latency.mean", above="1s", over="1m"),
        Rule("busy", "error_rate", above=10, over="1m", min_requests=20, model="m*"),
    ]
    firing = {rule.name: False for rule in rules}
    tests = []
    for index in range(len(snapshots)):
        for rule in rules:
            alerts = list(replay(Engine([rule]), snapshots[: index + 1]))
            firing[rule.name] = bool(alerts) and alerts[-1].state == "firing"
            # A rate needs two samples; at the first there is none.
            if index > 4:
                tests.append(expectation(rule, index * STEP, firing=firing[rule.name]))

    run_tests(
        tmp_path,
        rules,
        [
            {
                "interval": f"{STEP}s",
                "input_series": series_of(snapshots),
                "alert_rule_test": tests,
            }
        ],
    )
    assert any(test["exp_alerts"] for test in tests)


def test_objectives_burn_the_same(tmp_path: Path) -> None:
    """The burn rates of a page's series are those of our windows."""
    snapshots = history(random.Random(5))
    objectives = [
        Objective("up", target=0.9, over="12h"),
        Objective("quick", "latency", within="1s", target=0.9, over="12h"),
    ]
    # The lengths that burn rates of 12 h have and 15 s can show -> samples.
    windows = {"1m": 4, "6m": 24}
    tests = []
    for objective in objectives:
        for length, steps in windows.items():
            index = 27
            window = snapshots[index].delta(snapshots[index - steps])
            ratio = attained(objective, window)["m"].ratio
            assert ratio is not None
            series = (
                f'ometrics:objective:bad_ratio{{objective="{objective.name}",'
                f' window="{length}"}}'
            )
            tests.append(
                {
                    "expr": f"round({series}, 0.001)",
                    "eval_time": f"{index * STEP}s",
                    "exp_samples": [
                        {
                            "labels": '{job="agents", gen_ai_request_model="m",'
                            f' objective="{objective.name}", window="{length}"}}',
                            "value": round(1 - ratio, 3),
                        }
                    ],
                }
            )
    run_tests(
        tmp_path,
        objectives,
        [
            {
                "interval": f"{STEP}s",
                "input_series": series_of(snapshots),
                "promql_expr_test": tests,
            }
        ],
    )
