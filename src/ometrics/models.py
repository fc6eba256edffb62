# SPDX-License-Identifier: MIT
"""What is counted of a model: `PerformanceMetrics`, and `CallMetrics` of its calls.

Each field is declared here, once, by its annotation (see `fields.py`); nothing else in
the package lists them. Counts are exact integers and sums are integer nanoseconds, so
merging is associative and commutative. What is unknown is `None`, never 0.
"""

from __future__ import annotations

from datetime import datetime
from operator import add
from typing import Annotated, Final

import msgspec

from ometrics import fields
from ometrics.fields import (
    Counter,
    Counts,
    Distribution,
    Elapsed,
    Gauge,
    Members,
    Metric,
    OfLargest,
    Same,
    percentage,
    seconds_of_ns,
    since_1970,
)
from ometrics.histogram import (
    GENAI_DURATION_BUCKETS,
    GENAI_TOKEN_BUCKETS,
    LatencyHistogram,
    TokenHistogram,
)

# The read types are built with gc=False: they hold numbers, names and each other, never
# a cycle, and the collector need not look at the thousands of them in a snapshot.

OPERATIONS: Final = ("chat", "text_completion", "embeddings")

# Attributes of the OpenTelemetry GenAI conventions.
MODALITY: Final = "gen_ai.token.modality"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - no password
ERROR: Final = "error.type"

# A custom value: the conventions list no provider for Ollama, and allow one.
OLLAMA: Final = "ollama"

_TEXT: Final = {MODALITY: "text"}  # all that Ollama's clients count


def _duration(name: str, help_text: str = "") -> Metric:
    """A histogram with the bounds of the GenAI conventions."""
    return Metric(name, "s", help_text, GENAI_DURATION_BUCKETS)


_CALLS: Final = Metric(
    *("ometrics.calls", "{call}"),
    "Finished calls by outcome; all of them are requests as well.",
)
_DURATION: Final = _duration(
    "gen_ai.client.operation.duration",
    "Call to last byte; failed and cancelled calls have an error.type.",
)
_USAGE: Final = Metric(
    *("gen_ai.client.token.usage", "{token}"),
    "Tokens a call, of calls whose tokens are known.",
    GENAI_TOKEN_BUCKETS,
)
_KNOWN: Final = Metric(
    *("ometrics.call.usage.known", "{call}"),
    "Finished calls whose answer had the number of such tokens.",
)
_PHASES: Final = _duration(
    "ometrics.call.phase.duration",
    "Where the time went; the phases of a call add up to its latency.",
)
_REQUESTS: Final = Metric(
    *("ometrics.requests", "{request}"),
    "Requests by outcome; a cancelled one is neither success nor failure.",
)


class CallMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    Finished and running calls of one model and operation.

    Only calls seen from their start to their end count here (an instrumented client, or
    `record_response`); `PerformanceMetrics` counts these and all others.
    """

    operation: Annotated[
        str,
        Same(
            "OpenTelemetry `gen_ai.operation.name`: `chat`, `text_completion` or"
            " `embeddings`."
        ),
    ]
    provider: Annotated[
        str,
        Same("OpenTelemetry `gen_ai.provider.name` of the server, such as `ollama`."),
    ] = OLLAMA
    latency: Annotated[
        LatencyHistogram,
        Distribution("Call to last byte, of successful calls.", _DURATION),
    ] = LatencyHistogram()
    failed_latency: Annotated[
        LatencyHistogram,
        Distribution(
            "Call to failure, of failed calls.",
            _DURATION,
            {ERROR: "_OTHER"},
            title="until failure",
        ),
    ] = LatencyHistogram()
    cancelled_latency: Annotated[
        LatencyHistogram,
        Distribution(
            "Call to the moment at which the caller went away, of cancelled calls.",
            _DURATION,
            {ERROR: "cancelled"},
            title="until cancelled",
        ),
    ] = LatencyHistogram()
    time_to_first_chunk: Annotated[
        LatencyHistogram,
        Distribution(
            "Call to the first chunk; streams only.",
            _duration("gen_ai.client.operation.time_to_first_chunk"),
            title="first chunk",
        ),
    ] = LatencyHistogram()
    time_per_output_chunk: Annotated[
        LatencyHistogram,
        Distribution(
            "Time of each chunk after the first; streams only.",
            _duration("gen_ai.client.operation.time_per_output_chunk"),
            title="per output chunk",
        ),
    ] = LatencyHistogram()
    prompt_tokens: Annotated[
        int | None,
        Counter(
            "Prompt tokens, cached ones included.",
            Metric("gen_ai.client.inference.usage.input_tokens", "{token}"),
            _TEXT,
            known_by="prompt_tokens_known",
        ),
    ] = None
    prompt_tokens_known: Annotated[
        int,
        Counter("Calls whose prompt tokens are known.", _KNOWN, {TOKEN_TYPE: "input"}),
    ] = 0
    prompt_tokens_hist: Annotated[
        TokenHistogram,
        Distribution(
            "Prompt tokens a call.",
            _USAGE,
            {TOKEN_TYPE: "input"},
            title="prompt tokens",
        ),
    ] = TokenHistogram()
    cached_tokens: Annotated[
        int | None,
        Counter(
            "Prompt tokens that came from the cache: a part of the input tokens.",
            Metric("gen_ai.client.inference.usage.cache_read.input_tokens", "{token}"),
            _TEXT,
            known_by="cached_tokens_known",
        ),
    ] = None
    cached_tokens_known: Annotated[
        int,
        Counter(
            "Calls whose cached tokens are known.", _KNOWN, {TOKEN_TYPE: "cache_read"}
        ),
    ] = 0
    completion_tokens: Annotated[
        int | None,
        Counter(
            "Completion tokens, thinking included.",
            Metric("gen_ai.client.inference.usage.output_tokens", "{token}"),
            _TEXT,
            known_by="completion_tokens_known",
        ),
    ] = None
    completion_tokens_known: Annotated[
        int,
        Counter(
            "Calls whose completion tokens are known.", _KNOWN, {TOKEN_TYPE: "output"}
        ),
    ] = 0
    completion_tokens_hist: Annotated[
        TokenHistogram,
        Distribution(
            "Completion tokens a call.",
            _USAGE,
            {TOKEN_TYPE: "output"},
            title="completion tokens",
        ),
    ] = TokenHistogram()
    successful_reqs: Annotated[
        int, Counter("Calls that succeeded.", _CALLS, {"outcome": "success"})
    ] = 0
    failed_reqs: Annotated[
        int, Counter("Calls that failed.", _CALLS, {"outcome": "failure"})
    ] = 0
    cancelled_reqs: Annotated[
        int,
        Counter(
            "Calls whose caller went away: neither success nor failure.",
            _CALLS,
            {"outcome": "cancelled"},
        ),
    ] = 0
    retries: Annotated[
        int | None,
        Counter(
            "Calls by which a client tried an earlier one again, where it says so.",
            Metric("ometrics.call.retries", "{call}"),
            known_by="retries_known",
        ),
    ] = None
    retries_known: Annotated[
        int,
        Counter(
            "Calls of clients that say of each whether it is a retry.",
            Metric("ometrics.call.retries_known", "{call}"),
        ),
    ] = 0
    errors: Annotated[
        dict[str, int],
        Counts(
            "Failed calls by error code.",
            Metric("ometrics.call.errors", "{error}"),
            by=ERROR,
        ),
    ] = {}
    done_reasons: Annotated[
        dict[str, int],
        Counts(
            "Calls by the reason that the server gave for their end.",
            Metric("ometrics.call.done_reasons", "{call}"),
            by="reason",
        ),
    ] = {}
    time_to_first_answer: Annotated[
        LatencyHistogram,
        Distribution(
            "Call to the first chunk that is not thinking; streams only.",
            _duration("ometrics.call.time_to_first_answer"),
            title="first answer",
        ),
    ] = LatencyHistogram()
    connect: Annotated[
        LatencyHistogram,
        Distribution(
            "Waiting for the client's own pool, name resolution, connecting, TLS.",
            _PHASES,
            {"phase": "connect"},
        ),
    ] = LatencyHistogram()
    load: Annotated[
        LatencyHistogram,
        Distribution(
            "The server's load duration: waiting for a slot, and loading.",
            _PHASES,
            {"phase": "load"},
            title="load + queue",
        ),
    ] = LatencyHistogram()
    prefill: Annotated[
        LatencyHistogram,
        Distribution("The server's prompt evaluation.", _PHASES, {"phase": "prefill"}),
    ] = LatencyHistogram()
    decode: Annotated[
        LatencyHistogram,
        Distribution("The server's generation.", _PHASES, {"phase": "decode"}),
    ] = LatencyHistogram()
    residual: Annotated[
        LatencyHistogram,
        Distribution(
            "The server's total less load, prefill and decode.",
            _PHASES,
            {"phase": "residual"},
        ),
    ] = LatencyHistogram()
    network: Annotated[
        LatencyHistogram,
        Distribution(
            "Latency less connecting and the server's total: network and client.",
            _PHASES,
            {"phase": "network"},
        ),
    ] = LatencyHistogram()
    decode_tokens: Annotated[
        int,
        Counter(
            "Completion tokens of calls whose decode time is known too.",
            Metric("ometrics.call.decode.tokens", "{token}"),
        ),
    ] = 0
    decode_ns: Annotated[
        int,
        Counter(
            "Decode time of those calls: tokens over time is the decode rate.",
            Metric("ometrics.call.decode.time", "s"),
            convert=seconds_of_ns,
        ),
    ] = 0
    prefill_tokens: Annotated[
        int,
        Counter(
            "Prompt tokens not from the cache, of calls whose prefill time is known.",
            Metric("ometrics.call.prefill.tokens", "{token}"),
        ),
    ] = 0
    prefill_ns: Annotated[
        int,
        Counter(
            "Prefill time of those calls: tokens over time is the prefill rate.",
            Metric("ometrics.call.prefill.time", "s"),
            convert=seconds_of_ns,
        ),
    ] = 0
    in_flight: Annotated[
        int,
        Gauge(
            "Calls that are running.",
            Metric("ometrics.call.in_flight", "{call}"),
            combine=add,
        ),
    ] = 0
    oldest_in_flight_seconds: Annotated[
        float | None,
        Gauge(
            "Age of the oldest running call.",
            Metric("ometrics.call.oldest_age", "s"),
        ),
    ] = None
    oldest_silence_seconds: Annotated[
        float | None,
        OfLargest(
            "Time since the last chunk of the oldest running call.",
            Metric("ometrics.call.oldest_silence", "s"),
            gauge="oldest_in_flight_seconds",
        ),
    ] = None
    longest_silence_seconds: Annotated[
        float | None,
        Gauge(
            "Time since the last chunk of the running stream that is silent longest.",
            Metric("ometrics.call.longest_silence", "s"),
        ),
    ] = None
    silent_in_flight_seconds: Annotated[
        float | None,
        OfLargest(
            "Age of the running stream that is silent longest.",
            Metric("ometrics.call.silent_age", "s"),
            gauge="longest_silence_seconds",
        ),
    ] = None
    longest_wait_seconds: Annotated[
        float | None,
        Gauge(
            "Age of the oldest running call that has had no chunk.",
            Metric("ometrics.call.longest_wait", "s"),
        ),
    ] = None
    newest_chunk_seconds: Annotated[
        float | None,
        Gauge(
            "Time since the newest chunk of any running call.",
            Metric("ometrics.call.newest_chunk_age", "s"),
            combine=min,
        ),
    ] = None

    def __repr__(self) -> str:
        """What a person would ask for, in one line."""
        from ometrics.view.lines import call_line

        return call_line(self)

    @property
    def decode_tokens_per_second(self) -> float | None:
        """Completion tokens over the server's decode time; `None` if unknown."""
        return self.decode_tokens / self.decode_ns * 1e9 if self.decode_ns else None

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """Uncached prompt tokens over the server's prefill time; `None` if unknown."""
        return self.prefill_tokens / self.prefill_ns * 1e9 if self.prefill_ns else None

    def merge(self, *others: CallMetrics) -> CallMetrics:
        """All together; running calls add up, the oldest is the oldest of all."""
        return fields.merge((self, *others))

    def __sub__(self, earlier: CallMetrics) -> CallMetrics:
        """What came after `earlier`; running calls stay as they are now."""
        return fields.delta(self, earlier)


class PerformanceMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One model's requests."""

    model: Annotated[
        str,
        Same("Name as recorded; at most 256 characters, lone surrogates replaced."),
    ]
    successful_reqs: Annotated[
        int,
        Counter(
            "Requests that succeeded, their latency known or not.",
            _REQUESTS,
            {"outcome": "success"},
        ),
    ] = 0
    failed_reqs: Annotated[
        int, Counter("Requests that failed.", _REQUESTS, {"outcome": "failure"})
    ] = 0
    cancelled_reqs: Annotated[
        int,
        Counter(
            "Calls whose caller went away; not part of `total_requests`.",
            _REQUESTS,
            {"outcome": "cancelled"},
        ),
    ] = 0
    errors: Annotated[
        dict[str, int],
        Counts(
            "Failed requests by error code; at most 32 codes, the rest as `_OTHER`.",
            Metric(
                *("ometrics.request.errors", "{error}"),
                "Failed requests by error code.",
            ),
            by=ERROR,
        ),
    ] = {}
    latency_hist: Annotated[
        LatencyHistogram,
        Distribution(
            "Latency of successful requests.",
            Metric("ometrics.request.duration", "s"),
            always=True,
        ),
    ] = LatencyHistogram()
    failed_latency_hist: Annotated[
        LatencyHistogram,
        Distribution(
            "Time until failure of failed requests, where it is known.",
            Metric("ometrics.failed_request.duration", "s"),
            title="until failure",
        ),
    ] = LatencyHistogram()
    stalled_calls: Annotated[
        int,
        Counter(
            "Calls that were found stalled while they ran (`watch` with `stalls`).",
            Metric("ometrics.stalled_calls", "{call}"),
        ),
    ] = 0
    latency_unknown: Annotated[
        int,
        Counter(
            "Successful requests whose latency was not a number or negative.",
            Metric("ometrics.request.latency_unknown", "{request}"),
        ),
    ] = 0
    tokens_processed: Annotated[
        int, Counter("Tokens recorded.", Metric("ometrics.tokens", "{token}"))
    ] = 0
    last_updated: Annotated[
        datetime | None,
        Gauge(
            "When the model was last recorded (UTC, a few ms coarse).",
            Metric(
                *("ometrics.model.last_update_timestamp", "s"),
                "When the model was last recorded, since 1970.",
            ),
            convert=since_1970,
        ),
    ] = None
    uptime_seconds: Annotated[
        float, Elapsed("Length of the window that these counts cover.")
    ] = 0.0
    calls: Annotated[
        dict[str, CallMetrics],
        Members(
            "Operation -> `CallMetrics` of instrumented calls; at another provider than"
            " Ollama, `operation@provider`."
        ),
    ] = {}

    def __repr__(self) -> str:
        """What a person would ask for, in one line."""
        from ometrics.view.lines import model_line

        return model_line(self)

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        from ometrics.view.html import of_model

        return of_model(self)

    @property
    def total_requests(self) -> int:
        """Successes and failures."""
        return self.successful_reqs + self.failed_reqs

    @property
    def total_latency(self) -> float:
        """Sum of recorded latencies in seconds."""
        return self.latency_hist.total

    @property
    def min_latency(
        self,
    ) -> Annotated[
        float | None,
        Gauge(
            "Smallest latency since the start.",
            Metric("ometrics.request.min_duration", "s"),
        ),
    ]:
        """Smallest latency in seconds; `None` of nothing."""
        return self.latency_hist.min

    @property
    def max_latency(
        self,
    ) -> Annotated[
        float | None,
        Gauge(
            "Largest latency since the start.",
            Metric("ometrics.request.max_duration", "s"),
        ),
    ]:
        """Largest latency in seconds; `None` of nothing."""
        return self.latency_hist.max

    @property
    def avg_latency(self) -> float | None:
        """Mean of recorded latencies in seconds; `None` of nothing."""
        return self.latency_hist.mean

    @property
    def throughput(self) -> float | None:
        """Requests a second since start or reset; `None` before any time has passed."""
        return (
            self.total_requests / self.uptime_seconds if self.uptime_seconds else None
        )

    @property
    def error_rate(self) -> float:
        """Failures in percent of requests; 0.0 of nothing."""
        return percentage(self.failed_reqs, self.total_requests)

    @property
    def avg_tokens_per_req(self) -> float | None:
        """Tokens per success; `None` of nothing."""
        if not self.successful_reqs:
            return None
        return self.tokens_processed / self.successful_reqs

    @property
    def latency_p50(self) -> float | None:
        """Median latency in seconds, to 1.1 %; `None` of nothing."""
        return self.latency_hist.quantile(0.5)

    @property
    def latency_p90(self) -> float | None:
        """90th percentile in seconds, to 1.1 %; `None` of nothing."""
        return self.latency_hist.quantile(0.9)

    @property
    def latency_p95(self) -> float | None:
        """95th percentile in seconds, to 1.1 %; `None` of nothing."""
        return self.latency_hist.quantile(0.95)

    @property
    def latency_p99(self) -> float | None:
        """99th percentile in seconds, to 1.1 %; `None` of nothing."""
        return self.latency_hist.quantile(0.99)

    @property
    def latency_p999(self) -> float | None:
        """99.9th percentile in seconds, to 1.1 %; `None` of nothing."""
        return self.latency_hist.quantile(0.999)

    def merge(self, *others: PerformanceMetrics) -> PerformanceMetrics:
        """All together; the window is the longest of all."""
        return fields.merge((self, *others))

    def __sub__(self, earlier: PerformanceMetrics) -> PerformanceMetrics:
        """What came after `earlier`."""
        return fields.delta(self, earlier)


# Histograms of a call, in the order of their declaration; and the phases among them.
CALL_HISTOGRAMS: Final = fields.stored(CallMetrics, Distribution)
PHASES: Final = tuple(
    field.name for field in fields.fields_of(CallMetrics) if field.metric is _PHASES
)
fields.document(CallMetrics, PerformanceMetrics)
