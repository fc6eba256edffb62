"""Compare models: the same work, different speed and failures."""

import random

from ometrics import ErrorTimeout, MetricsCollector

random.seed(1)
mc = MetricsCollector()
TYPICAL_SECONDS = {"llama3.2": 0.4, "mistral": 0.7, "qwen3:30b": 2.5}

for model, seconds in TYPICAL_SECONDS.items():
    recorder = mc.model(model)  # bound once, faster each time
    for _ in range(1000):
        if random.random() < 0.02:
            recorder.record_error(ErrorTimeout)
        else:
            recorder.record_latency(random.lognormvariate(0, 0.4) * seconds)
            recorder.record_tokens(random.randint(50, 300))

print(f"{'model':10} {'requests':>8} {'errors':>7} {'p50':>7} {'p99':>7} {'tokens':>8}")
for name, m in mc.get_all_model_metrics().items():
    print(
        f"{name:10} {m.total_requests:8} {m.error_rate:6.1f}% {m.latency_p50:6.2f}s"
        f" {m.latency_p99:6.2f}s {m.tokens_processed:8}"
    )
