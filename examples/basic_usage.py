"""The whole interface in a minute: record, read, export."""

import tempfile
from pathlib import Path

from ometrics import ErrorTimeout, MetricsCollector

with MetricsCollector() as mc:
    mc.record_latency("llama2", 0.150)
    mc.record_latency("llama2", 0.100)
    mc.record_error("llama2", ErrorTimeout)
    mc.record_tokens("llama2", 500)
    mc.record_task_completion(True, 150.0)
    mc.update_resource_metrics(512, 45.5, 10)

    print(mc.get_summary())
    print(mc.get_model_summary("llama2"))
    print(mc.get_histogram_summary("llama2"))

    metrics = mc.get_model_metrics("llama2")
    assert metrics is not None
    print(f"p99 of {metrics.total_requests} requests: {metrics.latency_p99:.3f} s")

    path = Path(tempfile.mkdtemp()) / "metrics.json"
    mc.export_json_to_file(path)
    print(f"wrote {path.stat().st_size:,} bytes of JSON")
