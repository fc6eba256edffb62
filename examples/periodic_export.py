"""Write the metrics to a file now and then; readers never see half a file."""

import tempfile
import threading
from pathlib import Path

from ometrics import MetricsCollector, Snapshot

path = Path(tempfile.mkdtemp()) / "metrics.json"
mc = MetricsCollector()
stop = threading.Event()


def export_until_stopped(interval: float) -> None:
    while not stop.wait(interval):
        mc.export_json_to_file(path)


exporter = threading.Thread(target=export_until_stopped, args=(0.1,))
exporter.start()
for i in range(30):
    mc.record_latency("llama2", 0.1 + i / 100)
    stop.wait(0.01)
stop.set()
exporter.join()
mc.export_json_to_file(path)  # the last word

loaded = Snapshot.from_json(path.read_bytes())
print(f"{loaded.total_requests} requests in {path.name}")
for name, metrics in loaded.models.items():
    print(f"{name}: median {metrics.latency_p50:.3f} s")
