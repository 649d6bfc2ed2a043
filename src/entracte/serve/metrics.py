"""Metrics for Prometheus, without prompts, ids and keys in labels."""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .jobs.job import Job
from .queue_view import QueueSnapshot
from .workers.state import WorkerSnapshot

STAGE_SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800)
HTTP_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class Metrics:
    """queue, workers: called when metrics are read."""

    def __init__(
        self, queue: Callable[[], QueueSnapshot], workers: Callable[[], Sequence[WorkerSnapshot]]
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Now(queue, workers))
        self._videos = Counter(
            "entracte_videos", "Videos that ended", ["outcome", "reason"], registry=self._registry
        )
        self._stages = Histogram(
            "entracte_stage_seconds",
            "Seconds a stage took",
            ["stage"],
            buckets=STAGE_SECONDS,
            registry=self._registry,
        )
        self._made = Histogram(
            "entracte_video_seconds",
            "Seconds from a video's start to its end",
            buckets=STAGE_SECONDS,
            registry=self._registry,
        )
        self._waited = Histogram(
            "entracte_wait_seconds",
            "Seconds in the queue",
            buckets=STAGE_SECONDS,
            registry=self._registry,
        )
        self._http = Histogram(
            "entracte_http_seconds",
            "Seconds until an answer began",
            ["method", "route", "status"],
            buckets=HTTP_SECONDS,
            registry=self._registry,
        )
        self._webhooks = Counter(
            "entracte_webhooks", "Webhook attempts", ["outcome"], registry=self._registry
        )

    def ended(self, job: Job) -> None:
        """Count a job that finished, successfully or not."""
        self._videos.labels(job.status, job.error_code or "").inc()
        if job.status != "completed" or job.started_at is None or job.completed_at is None:
            return
        self._waited.observe(job.started_at - job.created_at)
        self._made.observe(job.completed_at - job.started_at)
        for stage, seconds in job.stage_durations.items():
            self._stages.labels(stage).observe(seconds)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._http.labels(method, route, str(status)).observe(seconds)

    def delivered(self, outcome: str) -> None:
        self._webhooks.labels(outcome).inc()

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Now(Collector):
    """Gauges that are computed when metrics are read."""

    def __init__(
        self, queue: Callable[[], QueueSnapshot], workers: Callable[[], Sequence[WorkerSnapshot]]
    ) -> None:
        self._queue = queue
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        queue = self._queue()
        yield GaugeMetricFamily("entracte_queued", "Videos that wait", queue.queued)
        yield GaugeMetricFamily("entracte_running", "Videos that are being made", queue.running)
        up = GaugeMetricFamily("entracte_worker_up", "1 where it can work", labels=["worker"])
        restarts = CounterMetricFamily(
            "entracte_worker_restarts", "Processes that ended", labels=["worker"]
        )
        weights = GaugeMetricFamily(
            "entracte_weights_bytes",
            "Memory of weights",
            labels=["worker", "component", "where"],
        )
        device = GaugeMetricFamily(
            "entracte_device_used_bytes", "Device memory in use", labels=["worker"]
        )
        host = GaugeMetricFamily(
            "entracte_host_used_bytes", "Host memory of the worker", labels=["worker"]
        )
        for worker in self._workers():
            up.add_metric([worker.name], float(worker.state in ("ready", "busy")))
            restarts.add_metric([worker.name], worker.restarts)
            if worker.memory is None:
                continue
            sums: dict[tuple[str, str], int] = {}
            for row in worker.memory.rows:
                place = row.component, row.where
                sums[place] = sums.get(place, 0) + row.bytes
            for (component, where), nbytes in sums.items():
                weights.add_metric([worker.name, component, where], nbytes)
            host.add_metric([worker.name], worker.memory.host_used)
            if worker.memory.device_used is not None:
                device.add_metric([worker.name], worker.memory.device_used)
        yield from (up, restarts, weights, device, host)
