# SPDX-License-Identifier: MIT
"""`ometrics serve`: the sidecar: a directory of processes for Prometheus and OTLP."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ometrics.cli import alerts
from ometrics.cli.alerts import rules_option
from ometrics.cli.check import load_rules
from ometrics.cli.command import Command
from ometrics.cli.serving import (
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
from ometrics.diagnosis import Findings
from ometrics.export.names import INSTANCE, Family, Labels, MetricRow
from ometrics.segments import Apart, Followed, attach
from ometrics.segments.places import open_directory
from ometrics.serve.numbers import counter, gauge
from ometrics.sources import Source
from ometrics.text import valid
from ometrics.view.terminal import console_for

if TYPE_CHECKING:
    from ometrics.export.otlp import PeriodicExporter

EXAMPLES: Final = (
    ("ometrics serve /run/ometrics/agents", "then Prometheus reads port 9464"),
    ("ometrics serve DIR --per-instance", "and sees each process"),
    ("ometrics serve DIR --rules default", "and be told when something is wrong"),
    ("ometrics serve DIR --otlp http://127.0.0.1:4318", "send it, too"),
    ("ometrics serve DIR --store metrics.db", "keep the history of all of them"),
)
NOTES: Final = """
Agents have their records in DIRECTORY (OMETRICS_DIR, MetricsCollector(directory=...));
reading them delays none. It is made, for this user only, if it is not there. What ended
processes counted stays in the sum, so it never goes back while this runs.

With --per-instance each process has the label 'instance' (in Prometheus with
honor_labels, else it is exported_instance there), and OTLP a resource; one that ended
is shown for five minutes more.

With --store the programs need none of their own. Killed, the next one goes on where it
had written last, and nothing is lost.

Ctrl-C or SIGTERM ends it, with a last export. Exit codes: 0 it ended so; 1 the
collector did not take that export; 2 it could not start.
"""

RUNNING: Final = gauge(
    "ometrics.directory.running",
    "{process}",
    "Processes that run and have their records in the directory.",
)
ENDED: Final = counter(
    "ometrics.directory.ended",
    "{process}",
    "Processes that had their records in the directory and ended.",
)
BAD: Final = counter(
    "ometrics.directory.bad",
    "{file}",
    "Files of the directory that were left out, by reason.",
    ("reason",),
)
PROCESS: Final = MetricRow(
    *("snapshot", "ometrics.process", "info", ""),
    "Which process an instance is.",
    *("", (), (INSTANCE, "pid", "program")),
)
#: All that a sidecar tells of the directory.
METRICS: Final = (RUNNING, ENDED, BAD, PROCESS)


@click.command(cls=Command, examples=EXAMPLES, notes=NOTES)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--listen",
    type=Address(),
    metavar="HOST:PORT",
    default="127.0.0.1:9464",
    show_default=True,
    help="Where /metrics is; port 0 is any free one.",
)
@click.option(
    "--per-instance", is_flag=True, help="Keep processes apart instead of adding them."
)
@rules_option
@otlp_option
@store_option
@guarded("Readers", "")
def serve(
    directory: Path,
    *,
    listen: tuple[str, int],
    otlp: str | None,
    store: str | None,
    rules_file: Path | None,
    token_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    hosts: tuple[str, ...],
    per_instance: bool,
    allow_public: bool,
) -> int:
    """Serve the numbers of all processes of a DIRECTORY: one page for a machine."""
    end = End()
    rules = None if rules_file is None else load_rules(rules_file)
    sending: PeriodicExporter | None = None
    with ExitStack() as stack:
        with starting():
            from ometrics.serve import Endpoint

            followed = attach(directory).follow()
            os.close(open_directory(directory, create=True))
            followed.read()
            source: Source = Apart(followed) if per_instance else followed
            endpoint = Endpoint.start(
                source,
                host=listen[0],
                port=listen[1],
                token_file=token_file,
                tls_cert=tls_cert,
                tls_key=tls_key,
                tls_client_ca=tls_client_ca,
                allowed_hosts=hosts,
                allow_public=allow_public,
                numbers=[lambda: _numbers(followed), Findings(followed)],
            )
            stack.enter_context(endpoint)
            if (where := usable(store)) is not None:
                from ometrics.store import Writer

                writer = Writer(where, followed, lasting=True).start()
                stack.callback(writer.close)
            if rules is not None:
                console = console_for(sys.stderr)
                stack.callback(alerts.watch(followed, rules, console).close, 2.0)
            if otlp is not None:
                sending = exporter(source, otlp)
        end.watch()
        say(f"serving {directory} at {endpoint.url}/metrics")
        end.wait()
        return 0 if sending is None else _ended(sending, otlp)


def _numbers(followed: Followed) -> Iterator[Family[Labels]]:
    """What the newest look found."""
    if followed.last is None:
        return
    instances, folded = followed.last
    running = [i for i in instances if i.alive]
    ended = len(instances) - len(running) + folded.processes
    yield Family.of(RUNNING, [((), len(running))])
    yield Family.of(ENDED, [((), ended)])
    bad: dict[str, int] = {}
    for reason, _ in followed.bad.values():
        bad[reason] = bad.get(reason, 0) + 1
    if bad:
        found: list[tuple[Labels, int]] = [
            ((("reason", why),), number) for why, number in bad.items()
        ]
        yield Family.of(BAD, found)
    named: list[tuple[Labels, int]] = [
        (((INSTANCE, i.id), ("pid", str(i.pid)), ("program", valid(i.program))), 1)
        for i in running
    ]
    if named:
        yield Family.of(PROCESS, named)


def _ended(sending: PeriodicExporter, url: str | None) -> int:
    """Send a last time; the exit code."""
    sending.close()
    failures = sending.health().failures
    if sending.health().consecutive_failures:
        say(f"{url} did not take the last export: {', '.join(failures)}")
        return 1
    return 0
