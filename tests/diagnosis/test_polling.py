# SPDX-License-Identifier: MIT
"""The poller of `/api/ps`, against a scripted server."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from forking import in_child, needs_fork
from hooks import wait_for

import ometrics
from ometrics import MetricsCollector, Snapshot
from ometrics.export.prometheus import TEXT, render
from ometrics.loaded import LoadedModel
from ometrics.ollama import Residency
from ometrics.testing import FakeClock, Hang, Raw, ScriptedOllama, Status, ps_response

PS = "/api/ps"


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A server that says what a test tells it."""
    with ScriptedOllama() as running:
        yield running


def says(server: ScriptedOllama, *names: str, **changes: Any) -> None:
    """Have these models in memory."""
    body = ps_response(names)
    for row in body["models"]:
        row.update(changes)
    server.script(PS, [body])


def by_name(residency: Residency) -> dict[str, Any]:
    """What it saw; the server adds a tag to names without one."""
    return {model.name.removesuffix(":latest"): model for model in residency.models}


def test_what_the_server_says(server: ScriptedOllama) -> None:
    """Sizes, context and quantization come as they are; a share of both."""
    says(server, "llama3.2:latest", size=1000, size_vram=250)
    residency = Residency(server.url)
    assert residency.poll()

    (model,) = residency.models
    assert ("llama3.2:latest", 1000, 0.25) == (model.name, model.size, model.gpu_share)
    assert (4096, True) == (model.context_length, model.loaded)
    assert residency.version


def test_loads_and_evictions_are_counted(server: ScriptedOllama) -> None:
    """A model that goes before its time was evicted; one that expired was not."""
    clock = FakeClock()
    residency = Residency(server.url, clock=clock)
    later = "2023-11-14T22:20:00Z"  # the fake clock begins at 22:13:20
    says(server, "a", "b", expires_at=later)
    residency.poll()
    says(server, "b", expires_at=later)
    residency.poll()  # a went before its time
    says(server, "a", "b", expires_at=later)
    residency.poll()
    clock.advance(1000)
    says(server)
    residency.poll()  # both had expired

    models = by_name(residency)
    assert (1, 1, False) == (
        models["a"].loads,
        models["a"].evictions,
        models["a"].loaded,
    )
    assert (0, 0, False) == (
        models["b"].loads,
        models["b"].evictions,
        models["b"].loaded,
    )


@pytest.mark.parametrize(
    "script",
    [
        [Status(500, {"error": "no"})],
        [Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n<x>")],
        [{"models": "many"}],
        [{"models": [{"size": 1}]}],
        [Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b" " * 9_000_000)],
    ],
)
def test_an_answer_of_something_else_is_a_failure(
    server: ScriptedOllama, script: Any
) -> None:
    """Whatever comes, it is counted, and what was known stays."""
    says(server, "a")
    residency = Residency(server.url)
    residency.poll()
    server.script(PS, script)

    assert not residency.poll()
    assert (1, 1, ["a"]) == (
        residency.polls,
        residency.failures,
        list(by_name(residency)),
    )


def test_nobody_there() -> None:
    """A server that is away is a failed poll, not an exception."""
    with ScriptedOllama() as server:
        url = server.url

    assert not Residency(url).poll()


def test_a_hanging_server_holds_up_no_reader(server: ScriptedOllama) -> None:
    """While a poll waits, what was seen can be read."""
    says(server, "a")
    residency = Residency(server.url, timeout=1.0)
    residency.poll()
    server.script(PS, [Hang()])
    thread = threading.Thread(target=residency.poll)
    thread.start()
    began = time.monotonic()
    names = list(by_name(residency))
    took = time.monotonic() - began
    thread.join()

    assert (["a"], True) == (names, took < 0.5)


def test_the_thread(server: ScriptedOllama) -> None:
    """`ometrics.ollama.residency` polls by itself until it is closed."""
    says(server, "a")
    with ometrics.ollama.residency(server.url, interval=0.01) as residency:
        wait_for(lambda: residency.polls > 2)

    assert "a" in by_name(residency)


@pytest.mark.parametrize("interval", [0, -1, float("inf"), float("nan")])
def test_a_bad_interval_is_refused(interval: float) -> None:
    """An interval that is no time is an error that quotes it."""
    with pytest.raises(ValueError, match=str(interval)):
        Residency(interval=interval)


def test_its_own_questions_are_no_calls(server: ScriptedOllama) -> None:
    """A server that knows no details of a model has refused nothing to the program."""
    says(server, "llama3.2")
    collector = ometrics.instrument(MetricsCollector())
    assert Residency(server.url).poll()
    ometrics.uninstrument(collector)

    assert "/api/show" in [request.path for request in server.requests]
    assert {} == dict(collector.snapshot().models)


def test_it_reads_only(server: ScriptedOllama) -> None:
    """Nothing but three questions goes to the server, one of them once a model."""
    residency = Residency(server.url)
    residency.poll()
    residency.poll()

    assert {
        ("GET", "/api/version"): 1,
        ("GET", PS): 2,
        ("POST", "/api/show"): 1,
    } == Counter((request.method, request.path) for request in server.requests)


def test_show_says_what_ps_leaves_out(server: ScriptedOllama) -> None:
    """Older servers tell sizes only, and what a model was made for is never there."""
    server.script(PS, [{"models": [{"name": "a", "size": 7}]}])
    details = {"quantization_level": "Q8_0", "parameter_size": "1B"}
    info = {"general.parameter_count": 1, "llama.context_length": 131_072}
    server.script("/api/show", [{"details": details, "model_info": info}])
    residency = Residency(server.url)
    residency.poll()
    (model,) = residency.models

    assert (7, None, 131_072, "Q8_0", "1B") == (
        model.size,
        model.context_length,
        model.longest_context,
        model.quantization,
        model.parameters,
    )


def test_a_snapshot_has_what_the_server_says(server: ScriptedOllama) -> None:
    """From the first poll on, in every snapshot, its JSON and its metrics."""
    says(server, "a", size=1000, size_vram=250)
    with MetricsCollector() as collector:
        assert {} == collector.snapshot().loaded_models
        collector.poll_ollama(server.url)
        loaded = wait_for(lambda: collector.snapshot().loaded_models)
        page = render(collector.snapshot(), TEXT).decode()
        again = Snapshot.from_json(collector.export_json()).loaded_models

    (name,) = loaded
    assert loaded == again
    assert (250, 4096) == (loaded[name].size_vram, loaded[name].context_length)
    label = f'{{gen_ai_request_model="{name}"}}'
    assert f"ometrics_server_model_loaded{label} 1\n" in page
    assert f"ometrics_server_model_gpu_size_bytes{label} 250\n" in page
    assert f"ometrics_server_model_loads_total{label} 0\n" in page


def test_what_a_server_invents_spoils_no_export(server: ScriptedOllama) -> None:
    """Numbers out of range, times without zone and names without end do not get in."""
    server.script(
        PS,
        [
            {
                "models": [
                    {
                        "name": "x" * 1000,
                        "size": -1,
                        "size_vram": 2**64 - 1,
                        "expires_at": "9999-12-31T23:59:59-10:00",
                        "details": {"quantization_level": "y" * 1000},
                    }
                ]
            }
        ],
    )
    residency = Residency(server.url)
    residency.poll()
    snapshot = residency.added_to(MetricsCollector().snapshot())
    (model,) = Snapshot.from_json(snapshot.to_json()).loaded_models.values()

    assert (256, None, None, None) == (
        len(model.name),
        model.size,
        model.size_vram,
        model.expires_at,
    )
    assert 256 == len(model.quantization or "")


def test_a_window_counts_its_loads_and_two_watchers_see_one_server() -> None:
    """Subtracting gives what came in between; merging adds no load twice."""
    before = LoadedModel(name="a", loads=2, evictions=1)
    after = LoadedModel(name="a", size=7, loads=5, evictions=1)

    assert (3, 0, 7) == ((after - before).loads, (after - before).evictions, after.size)
    assert (5, 7) == (after.merge(before).loads, before.merge(after).size)


@needs_fork
@pytest.mark.fork
def test_a_forked_child_asks_for_itself(server: ScriptedOllama) -> None:
    """The thread stays with the parent, so the child starts one of its own."""
    with MetricsCollector() as collector:
        collector.poll_ollama(server.url)
        wait_for(lambda: collector.snapshot().loaded_models)

        says(server, "b")

        def child() -> list[str]:
            return wait_for(
                lambda: [n for n in collector.snapshot().loaded_models if n[0] == "b"]
            )

        assert ["b:latest"] == in_child(child)
