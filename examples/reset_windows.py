"""Metrics a window: `reset_metrics` hands over what it clears, so nothing is lost."""

from ometrics import MetricsCollector

mc = MetricsCollector()
windows = []
for window in range(3):
    for i in range(100 * (window + 1)):
        mc.record_latency("llama2", 0.1 + i / 1000)
    windows.append(mc.reset_metrics())

for number, snapshot in enumerate(windows):
    print(f"window {number}: {snapshot.total_requests} requests")

whole = windows[0].merge(windows[1]).merge(windows[2])
print(f"together: {whole.total_requests} requests")
assert whole.total_requests == 600

# Without clearing anything: the difference of two snapshots.
mc.record_latency("llama2", 0.2)
before = mc.snapshot()
mc.record_latency("llama2", 0.3)
print(f"since then: {mc.snapshot().delta(before).total_requests} request")
