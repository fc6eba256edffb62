# SPDX-License-Identifier: MIT
"""Sources: several things that have numbers, read as one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ometrics import MetricsCollector, documents, merge, read


def test_merged_sources_are_asked_anew_each_time() -> None:
    """What is recorded after `merge()` is in the next snapshot."""
    one, other = MetricsCollector(), MetricsCollector()
    both = merge(one, other)

    one.record_latency("m", 1.0)
    other.record_latency("m", 2.0)

    assert both.snapshot().models["m"].total_requests == 2

    other.record_latency("m", 3.0)

    assert both.snapshot().models["m"].total_requests == 3


def test_a_merge_of_merges_is_the_merge_of_all() -> None:
    """A merged source is a source like any other."""
    parts = [MetricsCollector() for _ in range(3)]
    for part in parts:
        part.record_tokens("m", 5)

    nested = merge(merge(parts[0], parts[1]), parts[2]).snapshot()

    assert nested.models["m"].tokens_processed == 15
    assert nested.instance_id == merge(*parts).snapshot().instance_id


def test_nothing_cannot_be_merged() -> None:
    """No source has no snapshot: refused at once."""
    with pytest.raises(ValueError, match="at least one source"):
        merge()


# --- read: files and other endpoints


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """An export that another process writes every minute is always the last one."""
    path = tmp_path / "out.json"
    mc = MetricsCollector()
    source = read(path)
    mc.record_tokens("m", 1)
    mc.export_json_to_file(path)

    assert 1 == source.snapshot().models["m"].tokens_processed

    mc.record_tokens("m", 1)
    mc.export_json_to_file(path)

    assert 2 == source.snapshot().models["m"].tokens_processed


def test_a_file_that_is_no_export_is_named(tmp_path: Path) -> None:
    """The message has the file; a missing one is an `OSError`."""
    path = tmp_path / "other.json"
    path.write_text("{}")

    with pytest.raises(ValueError, match=r"other\.json: .*schema_version"):
        read(path).snapshot()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere.json").snapshot()


def test_too_large_documents_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they are parsed."""
    path = tmp_path / "large.json"
    path.write_bytes(b" " * 100)
    monkeypatch.setattr(documents, "MAX_BYTES", 99)

    with pytest.raises(ValueError, match="larger than"):
        read(path).snapshot()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "no http:// or https:// URL"),
        ("http://", "names no host"),
        ("http://host:99999", "[Pp]ort"),
        ("http://host\r\nX: y/", "names no host"),
        ("http://user:secret@host/", "token instead"),
    ],
)
def test_urls_that_are_none(url: str, message: str) -> None:
    """Refused at once, and no password is repeated."""
    with pytest.raises(ValueError, match=message) as error:
        read(url)
    assert "secret" not in str(error.value)


def test_a_token_is_for_urls() -> None:
    """A file asks for none."""
    with pytest.raises(ValueError, match="is a file"):
        read("out.json", token="t")


def test_another_endpoint_is_a_source() -> None:
    """Its numbers, with its token; without it the message says what it needs."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from ometrics.serve import Endpoint

    mc = MetricsCollector()
    mc.record_tokens("m", 7)
    token = "0123456789abcdef0123456789abcdef"
    with Endpoint.start(mc, port=0, token=token) as endpoint:
        assert 7 == (
            read(endpoint.url, token=token).snapshot().models["m"].tokens_processed
        )
        with pytest.raises(OSError, match=r"401.*token"):
            read(endpoint.url).snapshot()
        with pytest.raises(OSError, match=r"404.*/metrics\.json"):
            read(f"{endpoint.url}/x", token=token).snapshot()
        with pytest.raises(ValueError, match="/metrics: "):
            read(f"{endpoint.url}/metrics", token=token).snapshot()
    with pytest.raises(OSError, match="nothing listens there"):
        read(endpoint.url, token=token).snapshot()


class Answers(BaseHTTPRequestHandler):
    """Misbehaves as the path says."""

    def do_GET(self) -> None:
        """Redirect, stall, or drip."""
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://other.invalid/metrics.json")
            self.end_headers()
        elif self.path == "/near":
            self.send_response(302)
            self.send_header("Location", "/metrics.json")
            self.end_headers()
        elif self.path == "/drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            with suppress(OSError):
                for _ in range(1000):
                    self.wfile.write(b" ")
                    time.sleep(0.02)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(MetricsCollector().snapshot().to_json())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def misbehaving() -> Iterator[str]:
    """The URL of a server that is no endpoint."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_redirects_stay_on_the_host(misbehaving: str) -> None:
    """A token must not follow them elsewhere; the message names where it led."""
    assert 0 == read(f"{misbehaving}/near").snapshot().total_requests
    with pytest.raises(OSError, match=r"redirects to http://other\.invalid"):
        read(f"{misbehaving}/away", token="t").snapshot()


def test_a_slow_answer_is_given_up(misbehaving: str) -> None:
    """Though every byte of it comes in time."""
    with pytest.raises(OSError, match="no complete answer in time"):
        read(f"{misbehaving}/drip", timeout=0.2).snapshot()


def test_loopback_needs_no_proxy(
    misbehaving: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the environment cannot know this machine's ports."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    assert 0 == read(misbehaving).snapshot().total_requests
