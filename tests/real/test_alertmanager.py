# SPDX-License-Identifier: MIT
"""A real Alertmanager is told of incidents, and tells on (Debian's package)."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hooks import Hook, alert, wait_for
from ports import free_port

from ometrics.rules.outbox import Outbox
from ometrics.rules.receivers import Alertmanager

ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
CONFIG = """\
route:
  receiver: hook
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: hook
    webhook_configs:
      - url: {url}
        send_resolved: true
"""

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(ALERTMANAGER is None, reason="no Alertmanager on the path"),
]


class Server:
    """An Alertmanager that can be ended and started again."""

    def __init__(self, directory: Path, hook: Hook) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        config = directory / "alertmanager.yml"
        config.write_text(CONFIG.format(url=hook.url), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it until it answers."""
        self._process = subprocess.Popen(
            [
                str(ALERTMANAGER),
                f"--config.file={self._directory / 'alertmanager.yml'}",
                f"--storage.path={self._directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--cluster.listen-address=",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: self.alerts() is not None)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def alerts(self) -> list[dict[str, Any]] | None:
        """What it holds for active; `None` while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=5) as page:
                found: list[dict[str, Any]] = json.load(page)
                return found
        except OSError:
            return None


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Who Alertmanager tells."""
    with Hook() as server:
        yield server


@pytest.fixture
def server(tmp_path: Path, hook: Hook) -> Iterator[Server]:
    """A running Alertmanager."""
    manager = Server(tmp_path, hook)
    manager.start()
    yield manager
    manager.stop()


def heard(hook: Hook) -> list[tuple[str, str]]:
    """What Alertmanager told: states and models."""
    return [
        (row["status"], row["labels"]["gen_ai_request_model"])
        for _, body in list(hook.got)
        for row in json.loads(body)["alerts"]
    ]


def test_an_incident_goes_through(server: Server, hook: Hook) -> None:
    """It fires with its labels and sentence, is on, and ends."""
    receiver = Alertmanager(
        server.url, allow_internal=True, resend=0.3, labels={"team": "agents"}
    )
    outbox = Outbox(receiver)
    began = datetime.now(timezone.utc)
    outbox.put([alert("firing", began=began, at=began)])
    wait_for(lambda: ("firing", "llama3.2") in heard(hook))
    (row,) = server.alerts() or []
    end = began + timedelta(seconds=1)
    outbox.put([alert("resolved", began=began, at=end)])
    wait_for(lambda: ("resolved", "llama3.2") in heard(hook))
    outbox.close()

    assert {
        "alertname": "slow answers",
        "severity": "critical",
        "gen_ai_request_model": "llama3.2",
        "team": "agents",
    } == row["labels"]
    assert "is 3.1s, above 2s" in row["annotations"]["summary"]
    assert [("firing", "llama3.2"), ("resolved", "llama3.2")] == heard(hook)


def test_it_is_sent_again_until_it_ends(server: Server, hook: Hook) -> None:
    """It stays active long past the time for which one message would count."""
    outbox = Outbox(Alertmanager(server.url, allow_internal=True, resend=0.2))
    now = datetime.now(timezone.utc)
    outbox.put([alert("firing", began=now, at=now)])
    wait_for(lambda: datetime.now(timezone.utc) - now > timedelta(seconds=3))

    assert 1 == len(server.alerts() or [])
    assert [("firing", "llama3.2")] == heard(hook)
    outbox.close()
    # Nobody sends any more, as after a crash: it ends by itself.
    wait_for(lambda: server.alerts() == [])


def test_an_incident_waits_for_a_dead_alertmanager(server: Server, hook: Hook) -> None:
    """What began while it was away is told when it is back."""
    server.stop()
    outbox = Outbox(
        Alertmanager(server.url, allow_internal=True, resend=0.3), first_wait=0.05
    )
    now = datetime.now(timezone.utc)
    outbox.put([alert("firing", began=now, at=now)])
    wait_for(lambda: outbox.failed >= 2)
    server.start()
    wait_for(lambda: ("firing", "llama3.2") in heard(hook))
    outbox.close()

    assert (1, 0) == (outbox.delivered, outbox.lost)


def test_a_second_incident_is_not_ended_by_the_first(
    server: Server, hook: Hook
) -> None:
    """The end of an incident that is over is not repeated into the next one."""
    outbox = Outbox(Alertmanager(server.url, allow_internal=True, resend=0.2))
    now = datetime.now(timezone.utc)
    begins = [now, now + timedelta(seconds=2)]
    outbox.put([alert("firing", 1, began=begins[0], at=begins[0])])
    wait_for(lambda: len(heard(hook)) == 1)
    outbox.put([alert("resolved", 1, began=begins[0], at=now)])
    wait_for(lambda: len(heard(hook)) == 2)
    outbox.put([alert("firing", 2, began=begins[1], at=begins[1])])
    wait_for(lambda: len(heard(hook)) == 3)
    time.sleep(3)  # fifteen repetitions
    outbox.close()

    assert ["firing", "resolved", "firing"] == [state for state, _ in heard(hook)]
