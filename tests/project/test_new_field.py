# SPDX-License-Identifier: MIT
"""A counter and a histogram are three edits each: declaration, counting place, test.

In a copy of the package: the declarations go into `models.py`, the counting into
`_recording.pxd`, `tools/generate.py` writes the places, and the probe below, which is
the third edit, finds both in everything that shows numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.sanitize_skip,
    pytest.mark.skipif(not (ROOT / "tools").exists(), reason="needs the source tree"),
]

DECLARATION = """\
    long_reqs: Annotated[
        int,
        Counter(
            "Successful requests of over an hour.",
            Metric("ometrics.long_requests", "{request}"),
        ),
    ] = 0
    long_hist: Annotated[
        LatencyHistogram,
        Distribution(
            "Latency of those requests.",
            Metric("ometrics.long_request.duration", "s"),
        ),
    ] = LatencyHistogram()
"""
COUNTING = """\
    if reason == VALID and seconds > 3600.0:
        record.counters[MODEL_LONG_REQS] += 1
        locked_add_value(
            histogram_at(c.layout, record, MODEL_LONG_HIST), cell, seconds,
            &c.totals.counters[SNAPSHOT_SATURATED],
        )
"""
PROBE = """
import json, sys
from ometrics import MetricsCollector, Snapshot
from ometrics.export import _document, names, otlp, prometheus
from ometrics.export._otlp_encode import requests
from ometrics.store import schema
from ometrics.view.summary import model_summary

mc = MetricsCollector()
mc.record_latency("m", 1.0)
before = mc.snapshot()
mc.record_latency("m", 7200.0)
after = mc.snapshot()
model = after.models["m"]
both = after.merge(after).models["m"]
gained = after.delta(before).models["m"]
again = Snapshot.from_json(after.to_json())
page = prometheus.render(after).decode()
print(json.dumps({
    "snapshot": [model.long_reqs, model.long_hist.count, model.long_hist.max],
    "before": [before.models["m"].long_reqs, before.models["m"].long_hist.count],
    "merge": [both.long_reqs, both.long_hist.count],
    "delta": [gained.long_reqs, gained.long_hist.count],
    "json and back": again == after and again.models["m"].long_reqs,
    "schema": "long_reqs" in json.dumps(_document.schema()),
    "prometheus": [
        'ometrics_long_requests_total{gen_ai_request_model="m"} 1' in page,
        'ometrics_long_request_duration_seconds_count{gen_ai_request_model="m"} 1'
        in page,
    ],
    "otlp": b"ometrics.long_request.duration"
    in b"".join(request.SerializeToString() for request in requests(after, {})),
    "store": "long_reqs" in schema.model_windows.c,
    "names": [m.name for m in names.METRICS if ".long_" in m.name],
    "summary": [
        "Successful requests of over an hour: 1" in model_summary(model),
        "Latency of those requests: 1 value" in model_summary(model),
    ],
    "docstring": "long_reqs: Successful requests" in type(model).__doc__,
}))
"""


def test_a_new_counter_and_histogram(tmp_path: Path) -> None:
    """With three edits they are in every format, and in the way back."""
    copy = tmp_path / "copy"
    shutil.copytree(
        ROOT / "src",
        copy / "src",
        ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.egg-info"),
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "tools", copy / "tools")
    (copy / "docs").mkdir()
    package = copy / "src" / "ometrics"
    _edit(package / "models.py", "    latency_unknown: Annotated[", DECLARATION)
    recording = package / "_recording.pxd"
    _edit(recording, "    locked_emit(&c.ring, EVENT_LATENCY,", COUNTING)
    _edit(
        recording,
        "    MODEL_SUCCESSFUL_REQS,",
        "    MODEL_LONG_HIST,\n    MODEL_LONG_REQS,\n",
    )

    # Forgetting to generate the places does not pass.
    assert _run(copy, "tools/generate.py", "--check", check=False).returncode == 1
    _run(copy, "tools/generate.py")
    assert _run(copy, "tools/generate.py", "--check").returncode == 0
    _run(copy, "setup.py", "--quiet", "build_ext", "--inplace")
    seen = json.loads(_run(copy, "-c", PROBE).stdout)
    _run(copy, "tools/metrics_page.py")

    assert seen == {
        "snapshot": [1, 1, 7200.0],
        "before": [0, 0],
        "merge": [2, 2],
        "delta": [1, 1],
        "json and back": 1,
        "schema": True,
        "prometheus": [True, True],
        "otlp": True,
        "store": True,
        "names": ["ometrics.long_requests", "ometrics.long_request.duration"],
        "summary": [True, True],
        "docstring": True,
    }
    assert "ometrics.long_requests" in (copy / "docs" / "metrics.md").read_text()


def _edit(file: Path, before: str, text: str) -> None:
    source = file.read_text()
    assert before in source
    file.write_text(source.replace(before, text + before, 1))


def _run(
    copy: Path, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy / "src"), "OMETRICS_CFLAGS": "-O0"},
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done
