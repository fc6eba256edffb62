"""Watch what happens while it happens, without slowing it down."""

import threading

from ometrics import ErrorConnectionFailed, MetricsCollector

mc = MetricsCollector()
errors_only = mc.subscribe(capacity=1000, types=["error"])


def watch() -> None:
    for event in mc.metrics_channel:
        print(f"{event.timestamp:%H:%M:%S} {event.type:13} {event.model} {event.value}")
    print(f"channel closed, {mc.metrics_channel.dropped} events were too fast to see")


watcher = threading.Thread(target=watch)
watcher.start()

mc.record_latency("llama2", 0.25)
mc.record_error("mistral", ErrorConnectionFailed)
mc.record_task_completion(True, 1500)
mc.update_resource_metrics(640, 80.0, 12)

mc.close()  # channels drain, then end
watcher.join()
print("errors:", [(event.model, event.value) for event in errors_only.drain()])
