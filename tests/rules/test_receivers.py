# SPDX-License-Identifier: MIT
"""Where alerts go, and what becomes of them while nobody is there."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import socket
import threading
import time

import pytest
from hooks import Hook, alert, wait_for

from ometrics.rules import Alert, outbound
from ometrics.rules import outbox as outbox_module
from ometrics.rules.load import RulesFileError, loads
from ometrics.rules.outbound import BlockedAddressError, is_internal, target
from ometrics.rules.outbox import Outbox
from ometrics.rules.receivers import (
    Alertmanager,
    Callback,
    Log,
    RefusedError,
    Webhook,
    receiver_of,
)

RULE = "[[rule]]\nname = 'a'\nmetric = 'in_flight'\nabove = 1\n"


def test_a_webhook_says_it_all() -> None:
    """The body has type, time and alert; both of an incident have its id."""
    with Hook() as hook:
        receiver = Webhook(hook.url, allow_internal=True)
        for state in ("firing", "resolved"):
            receiver.send(alert(state))

    (first, body), (second, end) = hook.got
    document = json.loads(body)
    assert "alert.firing" == document["type"]
    assert ("slow answers", 3.1) == (
        document["data"]["rule"],
        document["data"]["value"],
    )
    assert document["data"]["id"] == json.loads(end)["data"]["id"]
    assert first["webhook-id"] != second["webhook-id"]
    assert ("/hook?team=a", "application/json") == (
        first["path"],
        first["content-type"],
    )


@pytest.mark.parametrize("secret", ["plain text", "whsec_" + "c2VjcmV0IQ=="])
def test_a_webhook_is_signed(secret: str) -> None:
    """The signature is that of the Standard Webhooks specification."""
    with Hook() as hook:
        Webhook(hook.url, secret=secret, allow_internal=True).send(alert())

    ((headers, body),) = hook.got
    key = b"secret!" if secret.startswith("whsec_") else secret.encode()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    assert f"v1,{base64.b64encode(digest).decode()}" == headers["webhook-signature"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "127.1"]
)
def test_no_internal_address_unless_allowed(host: str) -> None:
    """However it is written, an address of this machine is not posted to."""
    with Hook() as hook, pytest.raises(BlockedAddressError, match="allow_internal"):
        Webhook(f"http://{host}:{hook.port}/").send(alert())

    assert [] == hook.got


@pytest.mark.parametrize(
    ("address", "internal"),
    [
        *(
            (a, True)
            for a in ("10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254")
        ),
        *(
            (a, True)
            for a in ("100.64.0.1", "224.0.0.1", "fe80::1%eth0", "fd00::1", "::")
        ),
        *((a, True) for a in ("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::")),
        *(
            (a, True)
            for a in ("64:ff9b:1::1", "ff02::1", "240.0.0.1", "255.255.255.255")
        ),
        *((a, False) for a in ("1.1.1.1", "2606:4700::1111", "64:ff9b::101:101")),
        ("::ffff:1.1.1.1", False),
    ],
)
def test_which_addresses_are_internal(address: str, internal: bool) -> None:
    """Private, local, shared, multicast, and those of IPv6 that carry such a one."""
    assert internal is is_internal(address)


def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers differently the second time leads nowhere else."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        address = "192.0.2.1" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    reached: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        reached.append(address)
        raise OSError("unreachable")

    monkeypatch.setattr(outbound.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(outbound.socket, "create_connection", connect)
    monkeypatch.setattr(outbound, "is_internal", lambda address: False)
    with pytest.raises(OSError, match="unreachable"):
        outbound.post(target("http://rebind.example/"), b"", {})

    assert (["rebind.example"], [("192.0.2.1", 80)]) == (asked, reached)


def test_one_internal_address_of_several_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name with a public and a private address is not posted to."""
    rows = [(2, 1, 6, "", ("1.1.1.1", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(outbound.socket, "getaddrinfo", lambda *_, **__: rows)
    with pytest.raises(BlockedAddressError, match=r"10\.0\.0\.1"):
        outbound.post(target("http://both.example/"), b"", {})


def test_redirects_are_not_followed() -> None:
    """An answer that points elsewhere is a refusal."""
    with Hook() as hook:
        hook.statuses = [302]
        with pytest.raises(RefusedError, match="status 302"):
            Webhook(hook.url, allow_internal=True).send(alert())

    assert 1 == len(hook.got)


def test_a_slow_answer_has_a_deadline() -> None:
    """A server that sends a byte now and then does not hold the thread."""
    listener = socket.create_server(("127.0.0.1", 0))

    def dribble() -> None:
        peer, _ = listener.accept()
        with peer:
            try:
                while True:
                    peer.sendall(b"H")
                    time.sleep(0.05)
            except OSError:
                pass

    thread = threading.Thread(target=dribble)
    thread.start()
    began = time.monotonic()
    receiver = Webhook(
        f"http://127.0.0.1:{listener.getsockname()[1]}/",
        allow_internal=True,
        timeout=0.3,
    )
    with pytest.raises(OSError):
        receiver.send(alert())

    assert time.monotonic() - began < 10
    thread.join()
    listener.close()


# --- delivery


class Flaky:
    """A receiver that is away for a while."""

    name = "flaky"
    resend: float | None = None

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.got: list[Alert] = []
        self.let = threading.Event()
        self.let.set()

    def send(self, alert: Alert, /) -> None:
        """Fail, or keep it."""
        self.let.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away")
        self.got.append(alert)

    def repeat(self) -> None:
        """Nothing."""


def test_alerts_arrive_in_order_whatever_happens() -> None:
    """Each arrives once, after as many attempts as it takes."""
    receiver = Flaky(failures=3)
    outbox = Outbox(receiver, first_wait=0.001)
    sent = [alert("firing"), alert("resolved"), alert("firing", 2)]
    outbox.put(sent)
    wait_for(lambda: len(receiver.got) == 3)
    outbox.close()

    assert sent == receiver.got
    assert (3, 3, 0) == (outbox.delivered, outbox.failed, outbox.lost)


def test_what_comes_while_it_repeats_is_not_lost() -> None:
    """An alert that is put in while the receiver is told again arrives as well."""
    receiver = Flaky()
    outbox = Outbox(receiver)

    def repeat() -> None:
        if len(receiver.got) == 1:
            outbox.put([alert("resolved")])

    receiver.resend, receiver.repeat = 0.01, repeat  # type: ignore[method-assign]
    outbox.put([alert("firing")])
    wait_for(lambda: len(receiver.got) == 2)
    outbox.close()

    assert ["firing", "resolved"] == [alert.state for alert in receiver.got]


def test_a_hanging_receiver_blocks_nobody() -> None:
    """To put alerts in takes no time while the receiver hangs."""
    receiver = Flaky()
    receiver.let.clear()
    outbox = Outbox(receiver)
    began = time.monotonic()
    for number in range(1000):
        outbox.put([alert(number=number)])
    took = time.monotonic() - began
    assert 1000 == len(outbox.waiting())
    receiver.let.set()
    outbox.close()

    assert (1000, True) == (len(receiver.got), took < 5)


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the oldest are lost, and counted."""
    monkeypatch.setattr(outbox_module, "MOST_WAITING", 10)
    receiver = Flaky()
    receiver.let.clear()
    outbox = Outbox(receiver)
    outbox.put(alert(number=number) for number in range(25))

    assert (10, 15) == (len(outbox.waiting()), outbox.lost)
    receiver.let.set()
    outbox.close()
    assert "slow answers/llama3.2/24" == receiver.got[-1].id


def test_a_refusal_is_counted_and_the_next_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An answer that says never is not asked again."""
    with Hook() as hook, caplog.at_level(logging.WARNING):
        hook.statuses = [400, 204]
        outbox = Outbox(Webhook(hook.url, allow_internal=True), first_wait=0.001)
        outbox.put([alert("firing"), alert("resolved")])
        wait_for(lambda: len(hook.got) == 2)
        outbox.close()

    assert (1, 1) == (outbox.delivered, outbox.lost)
    assert "refused an alert: status 400" in caplog.text


def test_a_busy_server_is_asked_again() -> None:
    """503 and 429 are retried, under one id."""
    with Hook() as hook:
        hook.statuses = [503, 429, 204]
        outbox = Outbox(Webhook(hook.url, allow_internal=True), first_wait=0.001)
        outbox.put([alert()])
        wait_for(lambda: outbox.delivered == 1)
        outbox.close()

    assert 1 == len({headers["webhook-id"] for headers, _ in hook.got})
    assert 3 == len(hook.got)


def test_a_callback_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the user's function is logged by its class, and is not repeated."""
    seen: list[str] = []

    def tell(alert: Alert) -> None:
        seen.append(alert.state)
        raise KeyError("a secret of the user's")

    with caplog.at_level(logging.WARNING):
        outbox = Outbox(Callback(tell))
        outbox.put([alert("firing"), alert("resolved")])
        wait_for(lambda: len(seen) == 2)
        outbox.close()

    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_logging(caplog: pytest.LogCaptureFixture) -> None:
    """Python's logging gets a sentence, at a level by severity."""
    with caplog.at_level(logging.INFO, "ometrics.alerts"):
        Log().send(alert(model="ll\x1b[2Jama"))
        Log().send(alert("resolved", value=1.0))

    assert [
        (
            logging.CRITICAL,
            "slow answers: latency.p95 of ll\\x1b[2Jama is 3.1s, above 2s",
        ),
        (logging.INFO, "slow answers: latency.p95 of llama3.2 is back at 1s after 0s"),
    ] == [(record.levelno, record.message) for record in caplog.records]


# --- from a file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("webhook = 'ftp://x'", "not a URL"),
        ("webhook = 'https://user:pw@x.example/'", "user or password"),
        ("webhook = 5", "a URL is text"),
        (
            "webhook = 'https://x.example/'\nsecret_evn = 'A'",
            "did you mean 'secret_env'",
        ),
        ("webhook = 'https://x.example/'\nsecret_env = 'NO_SUCH'", "has no 'NO_SUCH'"),
        ("alertmanager = 'http://x'\nresend = 0", "resend 0 must be above 0 s"),
        ("alertmanager = 'http://x'\nallow_internal = 'yes'", "of the wrong type"),
        ("log = true\nwebhook = 'https://x.example/'", "name one receiver"),
        ("", "name one receiver"),
    ],
)
def test_a_bad_receiver_is_refused(text: str, message: str) -> None:
    """A receiver that cannot be is an error of the file, with its line."""
    with pytest.raises(RulesFileError) as refused:
        loads(f"{RULE}[[notify]]\n{text}", name="rules.toml")

    assert str(refused.value).startswith("rules.toml:5: ")
    assert message in str(refused.value)
    assert "pw" not in str(refused.value).replace("password", "")


def test_receivers_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of receiver can stand in a file."""
    monkeypatch.setenv("HOOK_SECRET", "whsec_c2VjcmV0")
    kinds = [
        receiver_of({"webhook": "https://x.example/a", "secret_env": "HOOK_SECRET"}),
        receiver_of({"alertmanager": "http://x.example:9093", "labels": {"a": "b"}}),
        receiver_of({"log": True}),
    ]

    assert [Webhook, Alertmanager, Log] == [type(kind) for kind in kinds]
    assert ["webhook x.example:443", "alertmanager x.example:9093", "log"] == [
        kind.name for kind in kinds
    ]
