# SPDX-License-Identifier: MIT
"""`ometrics serve`: a directory of processes for Prometheus and OpenTelemetry."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from cli_runs import call
from otlp_collector import collector, points_of, resource_of
from prometheus_client.parser import text_string_to_metric_families
from prometheus_proto import labels_of, parse
from sidecars import sidecar
from told_agents import CHAT, agent

import ometrics
from ometrics import MetricsCollector, Snapshot
from ometrics.export.prometheus import OPENMETRICS, PROTOBUF

pytest.importorskip("click", reason="the extra cli is not installed")
if os.name == "nt":
    pytest.skip("segments are files mapped", allow_module_level=True)

pytestmark = pytest.mark.fork

NONE: frozenset[tuple[str, str]] = frozenset()
Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the agents have their records."""
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "run" / "agents"


def get(url: str, accept: str = "text/plain") -> bytes:
    """A page."""
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        data: bytes = answer.read()
        return data


def samples(url: str) -> Samples:
    """Values of the metrics page by name and labels."""
    found: Samples = {}
    for family in text_string_to_metric_families(get(f"{url}/metrics").decode()):
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            assert labels not in found.setdefault(sample.name, {})
            found[sample.name][labels] = sample.value
    return found


def test_one_page_a_machine(directory: Path) -> None:
    """The sum of all processes, whatever becomes of them or of the directory."""
    with sidecar(directory) as (process, url):
        assert 0 == samples(url)["ometrics_directory_running"][NONE]
        with agent(directory) as one, agent(directory, "other.py") as other:
            one.do(CHAT.format("m"))
            other.do(CHAT.format("m"))
            seen = samples(url)
            other.kill()
            after = samples(url)
            document = Snapshot.from_json(get(f"{url}/metrics.json"))
        shutil.rmtree(directory)
        removed = samples(url)
        process.send_signal(signal.SIGTERM)

        assert 0 == process.wait(30)
    success = frozenset({("gen_ai_request_model", "m"), ("outcome", "success")})
    for page in (seen, after, removed):
        assert 2 == page["ometrics_requests_total"][success]
    assert [2, 1] == [
        page["ometrics_directory_running"][NONE] for page in (seen, after)
    ]
    assert 1 == after["ometrics_directory_ended_total"][NONE]
    assert {"agent.py", "other.py"} == {
        dict(labels)["program"] for labels in seen["ometrics_process_info"]
    }
    assert 2 == document.models["m"].successful_reqs


def test_history_of_a_machine(directory: Path, tmp_path: Path) -> None:
    """Whichever is killed, the programs or the sidecar: each count is there once."""
    pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")
    path = tmp_path / "metrics.db"

    def keep(number: signal.Signals) -> int:
        with sidecar(directory, "--store", str(path)) as (process, _):
            process.send_signal(number)
            process.wait(30)
        with ometrics.store.open(path, create=False) as store:
            return store.snapshot().total_requests

    with agent(directory) as one, agent(directory, "other.py") as other:
        one.do(CHAT.format("m"))
        assert 1 == keep(signal.SIGTERM)
        one.kill()
        other.do(CHAT.format("m"))
        assert 1 == keep(signal.SIGKILL)
        other.do(CHAT.format("n"))

    assert 3 == keep(signal.SIGTERM)


def test_each_process_apart(directory: Path) -> None:
    """Per instance, in every format: together they are the sum."""
    with agent(directory) as one, agent(directory, "other.py") as other:
        one.do(CHAT.format("m"))
        for model in ("m", "m", "n"):
            other.do(CHAT.format(model))
        with sidecar(directory, "--per-instance") as (_, url):
            text = samples(url)
            families = parse(get(f"{url}/metrics", PROTOBUF.content_type))
            openmetrics = get(f"{url}/metrics", OPENMETRICS.content_type)
            total = Snapshot.from_json(get(f"{url}/metrics.json"))
            one.kill()
            after = samples(url)
    counts = {
        (labels["instance"], labels["gen_ai_request_model"]): value
        for found, value in text["ometrics_requests_total"].items()
        if (labels := dict(found))["outcome"] == "success"
    }
    by_program = {
        dict(labels)["program"]: dict(labels)["instance"]
        for labels in text["ometrics_process_info"]
    }

    assert {
        (by_program["agent.py"], "m"): 1,
        (by_program["other.py"], "m"): 2,
        (by_program["other.py"], "n"): 1,
    } == counts
    assert 4 == total.total_requests
    metrics = families["ometrics_requests_total"].metric
    labelled = [(labels_of(metric), metric.counter.value) for metric in metrics]
    assert counts == {
        (labels["instance"], labels["gen_ai_request_model"]): value
        for labels, value in labelled
        if labels["outcome"] == "success"
    }
    durations = families["ometrics_request_duration_seconds"].metric
    assert 4 == sum(metric.histogram.sample_count for metric in durations)
    # They began at different times, which one page does not say.
    assert not any(m.counter.HasField("created_timestamp") for m in metrics)
    assert not any(m.histogram.HasField("created_timestamp") for m in durations)
    assert b"_created" not in openmetrics
    # One that ended stays for a while.
    assert text["ometrics_requests_total"] == after["ometrics_requests_total"]
    assert 1 == after["ometrics_directory_running"][NONE]


@pytest.mark.parametrize("apart", [False, True])
def test_the_last_export(directory: Path, apart: bool) -> None:
    """SIGTERM sends what was counted until then, as one resource or several."""
    options = ["--per-instance"] if apart else []
    with collector() as otlp, agent(directory) as one, agent(directory) as other:
        one.do(CHAT.format("m"))
        other.do(CHAT.format("m"))
        with sidecar(directory, "--otlp", otlp.url, *options) as (process, _):
            one.do(CHAT.format("m"))
            process.send_signal(signal.SIGTERM)

            assert 0 == process.wait(30)
    by_resource: dict[str, int] = {}
    for request in otlp.taken:
        instance = resource_of(request)["service.instance.id"]
        points = points_of([request]).get("ometrics.requests", {})
        by_resource[instance] = by_resource.get(instance, 0) + sum(
            point.as_int
            for labels, point in points.items()
            if ("outcome", "success") in labels
        )

    assert ([1, 2] if apart else [3]) == sorted(by_resource.values())


def test_a_collector_that_is_away_is_said(directory: Path) -> None:
    """The exit code tells that the last export did not arrive."""
    url = "http://127.0.0.1:9"
    with sidecar(directory, "--otlp", url) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)

        assert 1 == process.returncode
    assert f"{url} did not take the last export: connection" in said


@pytest.mark.parametrize(
    ("where", "options", "says"),
    [
        ("agents", ("--listen", "0.0.0.0:0"), "--allow-public"),
        ("agents", ("--token-file", "/nowhere"), "/nowhere"),
        ("file", (), "Not a directory"),
        ("open", (), "others can write"),
    ],
)
def test_what_cannot_be(
    where: str, options: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    """It ends with code 2, and says what to do instead."""
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    done = call("serve", tmp_path / where, *options)

    assert 2 == done.returncode, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_two_containers_and_a_sidecar(directory: Path) -> None:
    """
    Agents of equal pids in pid namespaces of their own, read from a third one.

    As in Kubernetes, where containers of a pod share an `emptyDir` and no pids.
    """
    unshare = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no pid namespaces here")
    with (
        agent(directory, prefix=unshare) as one,
        agent(directory, "other.py", unshare) as other,
        sidecar(directory, "--per-instance", prefix=unshare) as (_, url),
    ):
        one.do(CHAT.format("m"))
        other.do(CHAT.format("m"))
        seen = samples(url)
        other.kill()
        while samples(url)["ometrics_directory_running"][NONE] != 1:
            pass  # until its namespace is gone as well
        total = Snapshot.from_json(get(f"{url}/metrics.json"))

    labels = [dict(found) for found in seen["ometrics_process_info"]]
    assert {"agent.py", "other.py"} == {found["program"] for found in labels}
    assert {"1"} == {found["pid"] for found in labels}
    assert 2 == total.total_requests


def test_says_what_is_wrong(directory: Path, tmp_path: Path) -> None:
    """Rules hold for all processes together, and findings are on the page."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname="fails"\nmetric="errors"\nabove=5\n')
    with (
        MetricsCollector(directory=directory) as collector,
        sidecar(directory, "--rules", str(rules)) as (process, url),
    ):
        for _ in range(20):
            collector.record_error("llama3.2", "TIMEOUT")
        assert process.stderr is not None
        assert "firing fails: errors of llama3.2" in process.stderr.readline()
        page = get(f"{url}/metrics").decode()

    assert 'ometrics_findings{finding="timeouts"' in page
