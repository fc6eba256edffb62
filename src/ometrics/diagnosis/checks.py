# SPDX-License-Identifier: MIT
"""Checks of requests that succeed: why they are slow, or not what was asked for.

Each looks for one reason, and says nothing where numbers are few.

Thresholds are chosen so that a healthy model shows nothing: shares of time and calls
that a person would call large, and counts below which a share means little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ometrics.diagnosis.case import FEW, Case, Check, part
from ometrics.diagnosis.failures import failing, hung_calls, retries, stalled, timeouts
from ometrics.diagnosis.finding import Evidence, Finding
from ometrics.histogram import LatencyHistogram
from ometrics.models import PHASES, CallMetrics
from ometrics.rules.objectives import at_most
from ometrics.snapshot import Snapshot

_MANY: Final = 100  # below which a tail says little

_CUT_SHARE, _CUT_CALLS = 0.10, 5
_FULL_SHARE, _FULL = 0.10, 0.97
_LOAD_SHARE, _COLD_SECONDS, _COLD_CALLS = 0.20, 1.0, 2
_WAIT_SHARE, _WAIT_MEAN = 0.30, 0.1
_NETWORK_SHARE, _NETWORK_MEAN = 0.30, 0.05
_HIT_SHARE, _PREFILL_SHARE, _LONG_PROMPT = 0.05, 0.30, 200
_SLOWER, _ENOUGH_TOKENS = 0.70, 500
_EVICTIONS = 3
_TAIL_TIMES, _TAIL_SECONDS = 10.0, 1.0
_MOST_TIME = 0.80


def _shares(calls: CallMetrics) -> Mapping[str, float]:
    """
    Each phase's share of the calls' time.

    Where a server tells no times, as OpenAI's interface, only the connection is known
    apart: the time is then longer than its known phases.
    """
    seconds = {name: getattr(calls, name).total for name in PHASES}
    whole = max(sum(seconds.values()), calls.latency.total)
    return {name: total / whole if whole else 0.0 for name, total in seconds.items()}


def answers_cut(case: Case) -> Iterator[Finding]:
    """Answers that end because their length was limited."""
    reasons = {} if case.calls is None else case.calls.done_reasons
    cut, known = reasons.get("length", 0), sum(reasons.values())
    if cut >= _CUT_CALLS and cut >= _CUT_SHARE * known:
        yield Finding(
            kind="answers-cut",
            model=case.name,
            what="answers are cut off at their length limit",
            evidence=(
                Evidence("cut answers", cut),
                part("of all that gave a reason", cut / known),
            ),
            certainty="certain",
            advice="raise num_predict (max_tokens), or num_ctx if that is not set",
        )


def prompts_cut(case: Case) -> Iterator[Finding]:
    """Prompts that fill the context: what did not fit was dropped, silently."""
    context = None if case.loaded is None else case.loaded.context_length
    if case.calls is None or not context:
        return
    prompts = case.calls.prompt_tokens_hist
    if prompts.count < FEW:
        return
    largest = prompts.quantile(1.0 - _FULL_SHARE) or 0.0
    if largest >= _FULL * context:
        yield Finding(
            kind="prompts-cut",
            model=case.name,
            what="prompts are as long as the context, so their beginnings were dropped",
            evidence=(
                Evidence("context length", context),
                Evidence("prompt tokens, p90", largest),
                Evidence("longest", prompts.quantile(1.0) or 0.0),
            ),
            certainty="likely",
            advice="raise num_ctx (OLLAMA_CONTEXT_LENGTH) or shorten prompts: the"
            " server drops what does not fit without an error",
        )


def cold_starts(case: Case) -> Iterator[Finding]:
    """Time that goes into loading the model, or into waiting for a place for it."""
    if case.calls is None or case.calls.load.count < FEW:
        return
    load = case.calls.load
    cold = load.count - at_most(load, _COLD_SECONDS)
    share = _shares(case.calls)["load"]
    if cold >= _COLD_CALLS and share >= _LOAD_SHARE:
        times = case.loaded.loads if case.loaded is not None else 0
        seen = times >= _COLD_CALLS
        evidence = [
            part("of the time", share),
            Evidence("calls that waited over 1s for it", cold),
            Evidence("longest", load.quantile(1.0) or 0.0, "s"),
        ]
        if seen:
            evidence.append(Evidence("loads seen", times))
        yield Finding(
            kind="cold-starts",
            model=case.name,
            what="the model is loaded again and again"
            if seen
            else "calls wait for the model to be loaded, or for a place in memory",
            evidence=tuple(evidence),
            certainty="certain" if seen else "likely",
            advice="raise keep_alive (OLLAMA_KEEP_ALIVE), use fewer models at once, or"
            " raise OLLAMA_MAX_LOADED_MODELS if memory allows",
        )


def waiting(case: Case) -> Iterator[Finding]:
    """Time on the server in which neither prompt nor answer was worked on."""
    if case.calls is None or case.calls.residual.count < FEW:
        return
    residual = case.calls.residual
    share, mean = _shares(case.calls)["residual"], residual.mean or 0.0
    if share >= _WAIT_SHARE and mean >= _WAIT_MEAN:
        yield Finding(
            kind="waiting",
            model=case.name,
            what="calls wait on the server instead of being worked on",
            evidence=(
                part("of the time", share),
                Evidence("mean wait", mean, "s"),
                Evidence("p95", residual.quantile(0.95) or 0.0, "s"),
            ),
            certainty="likely",
            advice="send fewer requests at once, or raise OLLAMA_NUM_PARALLEL: requests"
            " beyond it queue behind each other",
        )


def connecting(case: Case) -> Iterator[Finding]:
    """Time in which the client waits for a connection, often for its own pool."""
    if case.calls is None or case.calls.connect.count < FEW:
        return
    connect = case.calls.connect
    share, mean = _shares(case.calls)["connect"], connect.mean or 0.0
    if share >= _NETWORK_SHARE and mean >= _NETWORK_MEAN:
        yield Finding(
            kind="connecting",
            model=case.name,
            what="calls wait for a connection before they are sent",
            evidence=(
                part("of the time", share),
                Evidence("mean", mean, "s"),
                Evidence("p95", connect.quantile(0.95) or 0.0, "s"),
            ),
            certainty="certain",
            advice="the client's pool of connections is too small (httpx: 100), or"
            " names and TLS take long: keep one client instead of one a call",
        )


def network(case: Case) -> Iterator[Finding]:
    """Time between client and server."""
    if case.calls is None or case.calls.network.count < FEW:
        return
    histogram = case.calls.network
    share, mean = _shares(case.calls)["network"], histogram.mean or 0.0
    if share >= _NETWORK_SHARE and mean >= _NETWORK_MEAN:
        yield Finding(
            kind="network",
            model=case.name,
            what="much of the time is spent outside the server",
            evidence=(
                part("of the time", share),
                Evidence("mean", mean, "s"),
                Evidence("p95", histogram.quantile(0.95) or 0.0, "s"),
            ),
            certainty="likely",
            advice="look at the connection, a proxy in between, and slow reading of"
            " streams",
        )


def cache_misses(case: Case) -> Iterator[Finding]:
    """Prompts that are evaluated whole, though that takes much of the time."""
    calls = case.calls
    if calls is None or calls.prompt_tokens is None or calls.cached_tokens is None:
        return
    if calls.cached_tokens_known < calls.prompt_tokens_known:
        return  # some server does not tell: unknown is not a miss
    if calls.successful_reqs < FEW or not calls.prompt_tokens:
        return
    share = _shares(calls)["prefill"]
    hits = calls.cached_tokens / calls.prompt_tokens
    length = calls.prompt_tokens / calls.successful_reqs
    if hits < _HIT_SHARE and share >= _PREFILL_SHARE and length >= _LONG_PROMPT:
        yield Finding(
            kind="cache-misses",
            model=case.name,
            what="long prompts are read from the start each time",
            evidence=(
                part("of the prompt tokens came from the cache", hits),
                part("of the time is reading prompts", share),
                Evidence("mean prompt tokens", length),
            ),
            certainty="likely",
            advice="keep the start of prompts the same (system prompt, tools, then"
            " history) and put what changes, such as the time, at the end",
        )


def slower_than_before(case: Case) -> Iterator[Finding]:
    """Tokens come slower than at an earlier time."""
    now, before = case.calls, case.earlier
    if now is None or before is None:
        return
    rate, earlier = now.decode_tokens_per_second, before.decode_tokens_per_second
    if rate is None or earlier is None:
        return
    few = min(now.decode_tokens, before.decode_tokens) < _ENOUGH_TOKENS
    if not few and rate <= _SLOWER * earlier:
        yield Finding(
            kind="decode-slower",
            model=case.name,
            what="tokens come slower than before",
            evidence=(
                Evidence("now", rate, "tokens/s"),
                Evidence("before", earlier, "tokens/s"),
            ),
            certainty="certain",
            advice="look for heat, another load on the machine, longer contexts, or a"
            " part of the model that is no longer in GPU memory",
        )


def long_tail(case: Case) -> Iterator[Finding]:
    """Some requests that take many times what most take."""
    histogram: LatencyHistogram = case.model.latency_hist
    if histogram.count < _MANY:
        return
    middle, tail = histogram.quantile(0.5) or 0.0, histogram.quantile(0.99) or 0.0
    if middle and tail >= _TAIL_TIMES * middle and tail >= _TAIL_SECONDS:
        yield Finding(
            kind="long-tail",
            model=case.name,
            what=f"one request in a hundred takes {tail / middle:.0f} x the usual time",
            evidence=(
                Evidence("p50", middle, "s"),
                Evidence("p99", tail, "s"),
                Evidence("requests", histogram.count),
            ),
            certainty="certain",
            advice="compare prompts and answer lengths of slow requests with others",
            problem=False,
        )


def on_the_cpu(case: Case) -> Iterator[Finding]:
    """A model that is not, or not whole, in GPU memory."""
    loaded = case.loaded
    if loaded is None or not loaded.size or loaded.size_vram is None:
        return
    share = loaded.size_vram / loaded.size
    if share < 1:
        rate = None if case.calls is None else case.calls.decode_tokens_per_second
        evidence = [part("of it is in GPU memory", share)]
        if rate is not None:
            evidence.append(Evidence("decode", rate, "tokens/s"))
        yield Finding(
            kind="on-the-cpu",
            model=case.name,
            what="the model runs on the CPU"
            if not share
            else "a part of the model runs on the CPU",
            evidence=tuple(evidence),
            certainty="certain",
            advice="a smaller quantization, context or model; where there is a GPU, see"
            " the server's log for why it is not used",
        )


def evictions(case: Case) -> Iterator[Finding]:
    """A model that others throw out of memory."""
    loaded = case.loaded
    if loaded is not None and loaded.evictions >= _EVICTIONS <= loaded.loads:
        yield Finding(
            kind="evictions",
            model=case.name,
            what="other models throw it out of memory, and it is loaded again",
            evidence=(
                Evidence("evictions", loaded.evictions),
                Evidence("loads", loaded.loads),
            ),
            certainty="likely",
            advice="fewer or smaller models at once, or more memory"
            " (OLLAMA_MAX_LOADED_MODELS, context lengths); run what uses one model"
            " together",
        )


CHECKS: Final[tuple[Check, ...]] = (
    *(failing, timeouts, hung_calls, stalled, retries),
    *(answers_cut, prompts_cut, on_the_cpu, evictions),
    *(
        cold_starts,
        waiting,
        connecting,
        network,
        cache_misses,
        slower_than_before,
        long_tail,
    ),
)


def few_requests(case: Case) -> Iterator[Finding]:
    """Too few requests for most checks."""
    total = case.model.total_requests
    if 0 < total < FEW:
        yield Finding(
            kind="few-requests",
            model=case.name,
            what="too few requests to say more",
            evidence=(Evidence("requests", total),),
            certainty="certain",
            advice=f"look again after {FEW}",
            problem=False,
        )


def one_takes_most(snapshot: Snapshot) -> Iterator[Finding]:
    """One model that most of the time goes into."""
    times = {
        name: model.latency_hist.total
        for name, model in snapshot.models.items()
        if model.total_requests >= FEW
    }
    whole = sum(times.values())
    if len(times) < 2 or not whole:  # noqa: PLR2004 - one has all the time
        return
    name = max(times, key=lambda name: times[name])
    if times[name] >= _MOST_TIME * whole:
        yield Finding(
            kind="takes-most-time",
            model=name,
            what="most of the time goes into this model",
            evidence=(
                part("of the time of all models", times[name] / whole),
                Evidence("requests", snapshot.models[name].total_requests),
            ),
            certainty="certain",
            advice="what makes this one faster makes the whole faster",
            problem=False,
        )
