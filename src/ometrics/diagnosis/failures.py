# SPDX-License-Identifier: MIT
"""Checks of requests that fail, hang, or are given up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ometrics.diagnosis.case import FEW, Case, part
from ometrics.diagnosis.finding import Evidence, Finding

_TIMEOUT_SHARE, _TIMEOUT_CALLS = 0.05, 3
_FAILING_SHARE, _FAILING_CALLS = 0.10, 5
_HUNG_SECONDS, _HUNG_TIMES = 60.0, 3.0
_STALLED_SHARE, _STALLED_CALLS = 0.05, 3
_RETRY_SHARE = 0.10


def timeouts(case: Case) -> Iterator[Finding]:
    """Requests that their caller gave up."""
    model = case.model
    count, total = model.errors.get("TIMEOUT", 0), model.total_requests
    if count >= _TIMEOUT_CALLS and count >= _TIMEOUT_SHARE * total:
        evidence = [
            Evidence("timeouts", count),
            part("of the requests", count / total),
        ]
        success = model.latency_hist.quantile(0.99)
        if success is not None:
            evidence.append(Evidence("p99 of successes", success, "s"))
        failure = model.failed_latency_hist.quantile(0.5)
        if failure is not None:
            evidence.append(Evidence("median time until failure", failure, "s"))
        yield Finding(
            kind="timeouts",
            model=case.name,
            what="requests are given up before they are answered",
            evidence=tuple(evidence),
            certainty="certain",
            advice="raise the client's timeout, stream, or ask for less; retries of"
            " what is still running make it slower",
        )


def failing(case: Case) -> Iterator[Finding]:
    """A share of failures, other than timeouts, that is more than bad luck."""
    errors = {code: n for code, n in case.model.errors.items() if code != "TIMEOUT"}
    count, total = sum(errors.values()), case.model.total_requests
    if count >= _FAILING_CALLS and count >= _FAILING_SHARE * total:
        code = max(errors, key=lambda code: errors[code])
        yield Finding(
            kind="failing",
            model=case.name,
            what=f"requests fail, most with {code}",
            evidence=(
                part("of the requests", count / total),
                Evidence("failures", count),
                Evidence(code, errors[code]),
            ),
            certainty="certain",
            advice=_ADVICE.get(code, "look at what the client raised: the code is its"),
        )


_ADVICE: Final = {
    "CONNECTION_FAILED": "is the server running, and at this address?",
    "INVALID_MODEL": "pull the model, or correct its name",
    "RESOURCE_EXHAUSTED": "send fewer requests at once; the server refuses what it has"
    " no room for (OLLAMA_MAX_QUEUE)",
    "MODEL_NOT_LOADED": "the model does not load: less memory in use, a smaller model"
    " or context, and the server's log",
    "INVALID_REQUEST": "the server refuses the request's parameters: its log says why",
    "TRUNCATED": "answers end in the middle: the server's log, and proxies in between",
}


def hung_calls(case: Case) -> Iterator[Finding]:
    """A call that has been running far longer than any that ended."""
    for operation, call in case.model.calls.items():
        age = call.oldest_in_flight_seconds
        if age is None or age < _HUNG_SECONDS:
            continue
        longest = call.latency.quantile(1.0)
        if longest is not None and age < _HUNG_TIMES * longest:
            continue
        evidence = [
            Evidence("oldest call", age, "s"),
            Evidence("calls running", call.in_flight),
        ]
        if longest is not None:
            evidence.append(Evidence("longest that ended", longest, "s"))
        yield Finding(
            kind="hung-calls",
            model=case.name,
            what=f"a call ({operation}) has been running for very long",
            evidence=tuple(evidence),
            certainty="likely",
            advice="set a timeout in the client: the Ollama client has none by default",
        )


def stalled(case: Case) -> Iterator[Finding]:
    """Calls that a watch saw hang, whatever became of them."""
    count, total = case.model.stalled_calls, case.model.total_requests
    if count >= _STALLED_CALLS and count >= _STALLED_SHARE * total:
        yield Finding(
            kind="stalled",
            model=case.name,
            what="streams stop in the middle, or calls hang",
            evidence=(
                Evidence("stalled calls", count),
                Evidence("requests that ended", total),
            ),
            certainty="certain",
            advice="look at the server's log and load at those times; set a timeout in"
            " the client: the Ollama client has none by default",
        )


def retries(case: Case) -> Iterator[Finding]:
    """Calls that are tried again, and add to what makes them fail."""
    calls = case.calls
    if calls is None or calls.retries is None or calls.retries_known < FEW:
        return
    share = calls.retries / calls.retries_known
    if share >= _RETRY_SHARE:
        failed = case.model.failed_reqs / max(case.model.total_requests, 1)
        yield Finding(
            kind="retries",
            model=case.name,
            what="calls are tried again and again",
            evidence=(
                part("of the calls are retries", share),
                part("of the requests fail", failed),
            ),
            certainty="certain",
            advice="find out why they fail first; then fewer retries, with growing"
            " waits: a server that still works on the first try has two to do",
        )
