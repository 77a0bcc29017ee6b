"""What the API tells of itself: a line of the log and two Prometheus series for every request, and the store's gauges.

Labels are bounded: methods that HTTP defines, templates of routes, classes of statuses, statuses of jobs and
deliveries.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.prediction.pool import Pool
from server.services import Services
from worker.log_format import request_id
from worker.queue import num_bells
from worker.store import operations, workers
from worker.store.database import DatabaseUnavailable

access = logging.getLogger("epochd.access")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class RequestMetrics:
    """Counts requests; in a registry of its own, so that each app counts for itself."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter(
            "epochd_http_requests", "Requests that were answered.", (*labels, "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "epochd_http_request_seconds", "Until the answer began.", labels, buckets=SECONDS, registry=self._registry
        )

    def observe(self, method: str, route: str, status_code: int, seconds: float) -> None:
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, f"{status_code // 100}xx").inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self, services: Services) -> bytes:
        """All series in Prometheus' text format, those of the store read now."""
        store = CollectorRegistry()
        store.register(_StoreCollector(services))
        store.register(_PredictionCollector(services.predictions))
        return generate_latest(self._registry) + generate_latest(store)


class _StoreCollector(Collector):
    """Gauges of what all processes share. Without the database only `epochd_database_up` tells that it is away."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = 1.0
        try:
            yield from self._gauges()
        except DatabaseUnavailable:
            up = 0.0
        yield GaugeMetricFamily("epochd_database_up", "Whether the database answers.", up)
        bells = num_bells(self._services.celery)
        yield GaugeMetricFamily("epochd_queue_up", "Whether the queue answers.", float(bells is not None))
        yield GaugeMetricFamily("epochd_queue_bells", "Messages that wait for a worker.", float(bells or 0))

    def _gauges(self) -> list[GaugeMetricFamily]:
        with self._services.database.read() as connection:
            num_jobs = operations.num_jobs(connection)
            oldest = operations.oldest_queued_at(connection)
            present = workers.recent(connection, seconds=self._services.settings.lease_seconds)
            num_deliveries = operations.num_deliveries(connection)
            oldest_delivery = operations.oldest_delivery_at(connection)
        jobs = GaugeMetricFamily("epochd_jobs", "Jobs by status.", labels=("status",))
        for status, count in num_jobs.items():
            jobs.add_metric((status,), count)
        deliveries = GaugeMetricFamily(
            "epochd_deliveries", "To webhooks, by status; finished ones of seven days.", labels=("status",)
        )
        for outcome, count in num_deliveries.items():
            deliveries.add_metric((outcome,), count)
        oldest_queued = "How long the first queued job has waited."
        oldest_told = "How long the first delivery has waited that is neither delivered nor given up."
        return [
            jobs,
            GaugeMetricFamily("epochd_oldest_queued_seconds", oldest_queued, _since(oldest)),
            deliveries,
            GaugeMetricFamily("epochd_oldest_delivery_seconds", oldest_told, _since(oldest_delivery)),
            GaugeMetricFamily("epochd_workers", "Workers that are there.", len(present)),
            GaugeMetricFamily("epochd_slots", "Jobs that they can train at once.", sum(w.slots for w in present)),
        ]


def _since(began: datetime | None) -> float:
    return 0.0 if began is None else max(0.0, time.time() - began.timestamp())


class _PredictionCollector(Collector):
    """What this process has predicted, and by how many processes beside it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def describe(self) -> Iterator[CounterMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        pool = self._pool
        yield CounterMetricFamily("epochd_predicted_images", "Images that were predicted.", pool.num_images)
        yield CounterMetricFamily("epochd_predictions", "Questions that were answered.", pool.num_answers)
        yield CounterMetricFamily("epochd_prediction_seconds", "What these took, with their waits.", pool.seconds)
        yield CounterMetricFamily("epochd_predictor_starts", "Processes that were started.", pool.num_starts)
        yield CounterMetricFamily("epochd_predictor_failures", "Questions without an answer.", pool.num_failures)
        yield GaugeMetricFamily("epochd_predictors", "Processes that are there.", pool.num_processes)


class Observation:
    """Measures and logs every request; it stands outside of everything but `RequestIds`."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self.app = app
        self._metrics = metrics
        self._templates: dict[object, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        token = request_id.set(scope["state"]["request_id"])
        began = time.perf_counter()
        status_code, seconds, recorded = 500, 0.0, False

        def record() -> None:
            nonlocal recorded
            if not recorded:
                recorded = True
                self._record(scope, status_code, seconds or time.perf_counter() - began)

        async def observed(message: Message) -> None:
            nonlocal status_code, seconds
            await send(message)
            if message["type"] == "http.response.start":
                status_code, seconds = message["status"], time.perf_counter() - began
            else:
                record()  # behind the first part of the body, which need not wait for it

        try:
            await self.app(scope, receive, observed)
        finally:
            record()
            request_id.reset(token)

    def _record(self, scope: Scope, status_code: int, seconds: float) -> None:
        method, route = scope["method"], self._template(scope)
        self._metrics.observe(method, route, status_code, seconds)
        caller = scope["state"].get("caller")
        fields = {
            "method": method,
            "path": scope["path"],
            "route": route,
            "status": status_code,
            "seconds": round(seconds, 6),
            "key_id": None if caller is None else caller.owner_id,
        }
        path = quote(scope["path"], safe="/{}:@,")
        access.info("%s %s %d in %.1f ms", method, path, status_code, seconds * 1000, extra={"fields": fields})

    def _template(self, scope: Scope) -> str:
        """The path of the route with its parameters unfilled; `other` where there is none."""
        endpoint = scope.get("endpoint")
        if endpoint is not None and endpoint not in self._templates:
            app: FastAPI = scope["app"]
            for route in iter_route_contexts(app.routes):
                self._templates[getattr(route.original_route, "endpoint", None)] = route.path or "other"
        return self._templates.get(endpoint, "other")
