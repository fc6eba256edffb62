# SPDX-License-Identifier: MIT
"""`ometrics proxy`: every client of a server measured, whatever its language."""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console

from ometrics.cli import alerts
from ometrics.cli.alerts import rules_option
from ometrics.cli.arguments import writable
from ometrics.cli.check import load_rules
from ometrics.cli.command import Command
from ometrics.cli.findings import FindingLines, problems
from ometrics.cli.serving import (
    LOOK_S,
    MAX_PORT,
    Address,
    End,
    exporter,
    guarded,
    otlp_option,
    say,
    starting,
    store_option,
)
from ometrics.cli.stored import usable
from ometrics.collector import MetricsCollector
from ometrics.diagnosis import Findings, diagnose
from ometrics.export import json as json_export
from ometrics.view import tables
from ometrics.view.escape import harmless
from ometrics.view.terminal import can_animate, console_for

if TYPE_CHECKING:
    from ometrics.proxy import Proxy
    from ometrics.serve import Endpoint
    from ometrics.snapshot import Snapshot


EXAMPLES: Final = (
    ("ometrics proxy", "then OLLAMA_HOST=http://127.0.0.1:11435 for agents"),
    ("ometrics proxy --live", "watch them"),
    ("ometrics proxy --rules default", "be told when something is wrong"),
    ("ometrics proxy --json day.json", "keep what was measured"),
    ("ometrics proxy --store metrics.db", "keep it for history, every ten seconds"),
    ("ometrics proxy --upstream http://gpu:8080", "in front of another server"),
)
NOTES: Final = """
OpenAI's clients find it by OPENAI_BASE_URL=http://127.0.0.1:11435/v1. Requests and
answers pass unchanged, byte by byte as they come; calls to models are measured on the
way, and nothing of their text is kept or logged. Ctrl-C or SIGTERM ends it: streams
under way have --drain seconds to end, then the summary is shown. A second one ends it
at once.

Web pages can only call it from this machine's own origins (--allow-origin adds some),
and other machines only with --token-file, --tls-client-ca or --allow-public.
"""


@click.command(cls=Command, examples=EXAMPLES, notes=NOTES)
@click.option(
    "--upstream",
    metavar="URL",
    default="http://127.0.0.1:11434",
    show_default=True,
    help="The server that the calls go to.",
)
@click.option(
    "--listen",
    type=Address(),
    metavar="HOST:PORT",
    default="127.0.0.1:11435",
    show_default=True,
    help="Where the clients find the proxy; port 0 is any free one.",
)
@click.option(
    "--serve",
    "metrics_port",
    type=click.IntRange(0, MAX_PORT),
    metavar="PORT",
    default=9464,
    show_default=True,
    help="Serve /metrics (Prometheus) on 127.0.0.1:PORT; 0 is any free one.",
)
@click.option(
    "--json",
    metavar="FILE",
    callback=writable,
    help="Write all that was measured to FILE at the end, for 'show' and 'diff'.",
)
@otlp_option
@click.option(
    "--directory",
    metavar="DIR",
    help="Keep the numbers in a file in DIR, which other processes read meanwhile and"
    " which outlives a crash; OMETRICS_DIR if left out.",
)
@store_option
@click.option(
    "--live",
    is_flag=True,
    help="Show a table that updates in place, when standard error is a terminal.",
)
@rules_option
@click.option(
    "--poll/--no-poll",
    "polls",
    default=True,
    show_default=True,
    help="Ask the server every five seconds for its models, if it is an Ollama.",
)
@click.option(
    "--drain",
    type=click.FloatRange(0, 86_400),
    metavar="S",
    default=10.0,
    show_default=True,
    help="How long streams under way may go on at the end.",
)
@click.option(
    "--max-requests",
    type=click.IntRange(1, 100_000),
    metavar="N",
    default=1000,
    show_default=True,
    help="Requests under way at once; further ones are answered 503.",
)
@click.option(
    "--allow-origin",
    "origins",
    metavar="ORIGIN",
    multiple=True,
    help="A web page's origin that may call, as https://chat.example.com; repeatable.",
)
@guarded("Callers", ", as their API key")
def proxy(
    *,
    upstream: str,
    listen: tuple[str, int],
    metrics_port: int,
    json: Path | None,
    otlp: str | None,
    directory: str | None,
    store: str | None,
    drain: float,
    max_requests: int,
    token_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    live: bool,
    polls: bool,
    rules_file: Path | None,
    allow_public: bool,
) -> int:
    """
    Stand in front of a server and measure every client, in any language.

    The server is Ollama, or another that speaks its interface, OpenAI's or Anthropic's.
    """
    end = End()
    rules = None if rules_file is None else load_rules(rules_file)
    console = console_for(sys.stderr)
    with ExitStack() as stack:
        with starting():
            from ometrics.proxy import Proxy
            from ometrics.serve import Endpoint

            collector = stack.enter_context(
                MetricsCollector(directory=directory, store=usable(store))
            )
            running = Proxy.start(
                collector,
                upstream=upstream,
                host=listen[0],
                port=listen[1],
                token_file=token_file,
                tls_cert=tls_cert,
                tls_key=tls_key,
                tls_client_ca=tls_client_ca,
                allowed_hosts=hosts,
                allowed_origins=origins,
                allow_public=allow_public,
                max_requests=max_requests,
            )
            stack.callback(running.close, 0.0)
            endpoint = stack.enter_context(
                Endpoint.start(
                    collector,
                    port=metrics_port,
                    numbers=[running.numbers, Findings(collector)],
                )
            )
            if polls:
                collector.poll_ollama(upstream)
            if rules is not None:
                stack.callback(alerts.watch(collector, rules, console).close, 2.0)
            if otlp is not None:
                stack.callback(exporter(collector, otlp).close)
        end.watch()
        _introduce(running, endpoint)
        _work(running, collector, end, console, drain_s=drain, shows=live)
        _report(collector, console, json)
    return 0


def _introduce(running: Proxy, endpoint: Endpoint) -> None:
    say(f"measuring {running.upstream.base} at {running.url}")
    say(f"for the clients: OLLAMA_HOST={running.url}")
    say(f"metrics: {endpoint.url}/metrics")


def _work(
    running: Proxy,
    collector: MetricsCollector,
    end: End,
    console: Console,
    *,
    drain_s: float,
    shows: bool,
) -> None:
    """Until the end, and until what is under way then has ended."""
    if shows and can_animate(console):
        from ometrics.view.live import live

        with live(collector, console, below=FindingLines(Findings(collector))):
            end.wait()
        console.print()
    else:
        end.wait()
    if running.under_way:
        say(f"{running.under_way} under way: they have at most {drain_s:g} s more")
    closing = threading.Thread(target=running.close, args=(drain_s,), daemon=True)
    closing.start()
    while closing.is_alive() and not end.is_urgent:
        closing.join(LOOK_S)
    running.close(0.0)


def _report(collector: MetricsCollector, console: Console, json: Path | None) -> None:
    snapshot = collector.snapshot()
    try:
        console.print(tables.report(snapshot), end="")
        for finding in problems(diagnose(snapshot)):
            console.print(finding)
    finally:  # the file is there also if nobody reads the summary any more
        if json is not None:
            _write(snapshot, json)


def _write(snapshot: Snapshot, json: Path) -> None:
    try:
        json_export.write(snapshot, json)
    except OSError as error:
        raise click.ClickException(
            f"cannot write {harmless(str(json))}: {error.strerror}"
        ) from None
    say(f"wrote {json}")
