# SPDX-License-Identifier: MIT
"""`ometrics proxy`: from the command line to the report at its end."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cli_runs import OMETRICS, call, environment, proxy_command
from otlp_collector import collector
from proxying import BODY, MODEL, PATIENCE

import ometrics
from ometrics import Snapshot
from ometrics.testing import Hang, ScriptedOllama, Status, chat_chunk, chat_done


@contextmanager
def _chat(url: str) -> Iterator[http.client.HTTPResponse]:
    """A call by hand."""
    where = urlsplit(url)
    with closing(
        http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE)
    ) as connection:
        connection.request("POST", "/api/chat", body=json.dumps(BODY))
        yield connection.getresponse()


def test_measures_serves_and_reports(server: ScriptedOllama, tmp_path: Path) -> None:
    """A call is on the metrics page, and at the end in the summary and the file."""
    file = tmp_path / "day.json"
    with proxy_command(server, "--json", str(file)) as (process, url, metrics):
        with _chat(url) as answer:
            answer.read()
        with urllib.request.urlopen(metrics, timeout=PATIENCE) as got:
            page = got.read().decode()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)

    assert 'ometrics_proxy_requests_total{result="answered"} 1' in page
    assert "ometrics_proxy_upstream_up" in page
    assert f'model="{MODEL}"' in page or MODEL in page
    assert 0 == process.returncode
    assert MODEL in said
    assert 1 == Snapshot.from_json(file.read_bytes()).models[MODEL].successful_reqs


def test_keeps_history(server: ScriptedOllama, tmp_path: Path) -> None:
    """What was measured is in the store at the end."""
    pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")
    path = tmp_path / "metrics.db"
    with proxy_command(server, "--store", str(path)) as (process, url, _):
        with _chat(url) as answer:
            answer.read()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)

    assert 0 == process.returncode
    with ometrics.store.open(path, create=False) as store:
        assert 1 == store.snapshot().models[MODEL].successful_reqs


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("nowhere/metrics.db", "does not exist: make it first"),
        ("mysql://host/db", "is no database that a store knows"),
    ],
)
def test_a_store_that_cannot_be_is_said_at_once(store: str, said: str) -> None:
    """Before anybody calls; without a traceback."""
    pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")
    done = subprocess.run(
        [*OMETRICS, "proxy", "--store", store, "--listen", ":0"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert 2 == done.returncode
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_sigterm_lets_streams_end(server: ScriptedOllama) -> None:
    """A stream under way at SIGTERM comes whole."""
    server.script("/api/chat", [chat_chunk("a"), Hang(), chat_done()])
    with proxy_command(server) as (process, url, _), _chat(url) as answer:
        server.wait_for(lambda s: s.hanging)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "1 under way" in process.stderr.readline()
        server.release()
        assert answer.read().endswith(b"}\n")
        assert 0 == process.wait(PATIENCE)


def test_for_other_readers(server: ScriptedOllama, tmp_path: Path) -> None:
    """What was measured is in the directory at once, and in OTLP at the end."""
    segments = tmp_path / "segments"
    with (
        collector() as otlp,
        proxy_command(server, "--directory", str(segments), "--otlp", otlp.url) as (
            process,
            url,
            _,
        ),
    ):
        with _chat(url) as answer:
            answer.read()
        models = ometrics.attach(segments).snapshot().models
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        points = otlp.points()

    assert 1 == models[MODEL].successful_reqs
    assert 0 == process.returncode
    assert "ometrics.calls" in points


def test_two_on_one_machine(server: ScriptedOllama) -> None:
    """Each measures its own callers, and one's end is none of the other's."""
    with (
        proxy_command(server) as (first, url, _),
        proxy_command(server) as (second, other, _),
    ):
        for where in (url, other, other):
            with _chat(where) as answer:
                answer.read()
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate(timeout=PATIENCE)
        with _chat(other) as answer:
            answer.read()
        second.send_signal(signal.SIGTERM)
        _, other_said = second.communicate(timeout=PATIENCE)

    assert "1 request ·" in said
    assert "3 requests ·" in other_said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--listen", "0.0.0.0:0"), "--allow-public"),
        (("--listen", "nowhere"), "HOST:PORT"),
        (("--upstream", "ftp://x"), "no address of a server"),
        (("--listen", "127.0.0.1:{port}"), "is in use"),
        (("--upstream", "http://127.0.0.1:0", "--token-file", "/nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be(
    server: ScriptedOllama, options: tuple[str, ...], says: str
) -> None:
    """A wrong option ends it with code 2, and with what to do instead."""
    given = [option.format(port=server.port) for option in options]
    done = call("proxy", "--serve", "0", *given)

    assert 2 == done.returncode, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_says_what_is_wrong_and_why(server: ScriptedOllama, tmp_path: Path) -> None:
    """Alerts, findings on the page and in the report, and models of the server."""
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nname = "fails"\nmetric = "errors"\nabove = 5\n[stalls]\n',
        encoding="utf-8",
    )
    server.script("/api/chat", [Status(500, {"error": "no"})])
    with proxy_command(server, "--rules", str(rules)) as (process, url, metrics):
        for _ in range(20):
            with _chat(url) as answer:
                answer.read()
        assert process.stderr is not None
        assert "firing fails: errors" in process.stderr.readline()
        with urllib.request.urlopen(metrics, timeout=PATIENCE) as got:
            page = got.read().decode()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)

    assert 'ometrics_findings{finding="failing"' in page
    assert "ometrics_server_model_loaded" in page
    assert f"{MODEL}: requests fail, most with" in said
    assert "  because" in said


def test_asks_the_server_nothing_when_told_so(server: ScriptedOllama) -> None:
    """With --no-poll only what callers send goes to it."""
    with proxy_command(server, "--no-poll") as (process, url, _):
        with _chat(url) as answer:
            answer.read()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)

    assert ["/api/chat"] == [request.path for request in server.requests]


def test_bad_rules_are_refused_before_it_listens(
    server: ScriptedOllama, tmp_path: Path
) -> None:
    """Exit code 2, with file and line."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "a"\nmetric = "errorz"\n', encoding="utf-8")
    done = subprocess.run(
        [*OMETRICS, "proxy", "--upstream", server.url, "--rules", str(rules)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 2 == done.returncode
    assert "rules.toml:3: " in done.stderr
