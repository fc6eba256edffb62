"""Eight threads record at full speed; every snapshot on the way is consistent."""

import threading

from ometrics import MetricsCollector

THREADS, RECORDS = 8, 50_000
mc = MetricsCollector()
start = threading.Barrier(THREADS + 1)


def work() -> None:
    recorder = mc.model("llama2")
    start.wait()
    for _ in range(RECORDS):
        recorder.record_latency(0.001)


threads = [threading.Thread(target=work) for _ in range(THREADS)]
for thread in threads:
    thread.start()
start.wait()
snapshots = 0
while any(thread.is_alive() for thread in threads):
    metrics = mc.get_model_metrics("llama2")
    if metrics is not None:
        assert metrics.total_requests == metrics.latency_hist.count
        assert metrics.total_requests == sum(metrics.latency_hist.buckets.values())
        snapshots += 1
for thread in threads:
    thread.join()

print(f"{mc.snapshot().total_requests:,} of {THREADS * RECORDS:,} records counted")
print(f"{snapshots} snapshots on the way, each one consistent")
assert mc.snapshot().total_requests == THREADS * RECORDS
