"""For operators: which workers there are, and what waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from server import operation_schemas
from server.auth import CallerOf
from server.observability import RequestMetrics
from server.openapi import Responses, problems
from server.services import ServicesOf
from worker.jobs import JobStatus
from worker.queue import QUEUE, num_bells
from worker.store import operations, workers

router = APIRouter(tags=["operations"])

METRICS_TEXT: Responses = {200: {"description": "Prometheus' text format", "content": {"text/plain": {}}}}


@router.get("/v1/workers", responses=problems(503))
def list_workers(services: ServicesOf, caller: CallerOf) -> operation_schemas.WorkerPage:
    """The workers that were seen within a day."""
    silent_since = datetime.now(UTC) - timedelta(seconds=services.settings.lease_seconds)
    with services.database.read() as connection:
        known, running = workers.known(connection), operations.running(connection)
    data = []
    for worker in known:
        lost = worker.status != "stopped" and worker.last_seen_at < silent_since
        jobs = running.get(worker.id, [])
        visible = tuple(job.id for job in jobs if caller.sees(job.owner_id))
        fields = {**vars(worker), "jobs": visible, "num_jobs": len(jobs)}
        data.append(operation_schemas.Worker.model_validate(fields | ({"status": "lost"} if lost else {})))
    return operation_schemas.WorkerPage(data=tuple(data), next_cursor=None, has_more=False)


@router.get("/v1/queues", responses=problems(503))
def list_queues(services: ServicesOf) -> operation_schemas.QueuePage:
    """What waits and what runs, of all keys together."""
    bells = num_bells(services.celery)
    with services.database.read() as connection:
        num_jobs = operations.num_jobs(connection)
        present = workers.recent(connection, seconds=services.settings.lease_seconds)
        queue = operation_schemas.Queue(
            name=QUEUE,
            queued=num_jobs[JobStatus.QUEUED],
            claimable=operations.num_claimable(connection),
            running=num_jobs[JobStatus.RUNNING],
            paused=num_jobs[JobStatus.PAUSED],
            oldest_queued_at=operations.oldest_queued_at(connection),
            slots=sum(worker.slots for worker in present),
            bells=bells,
        )
    return operation_schemas.QueuePage(data=(queue,), next_cursor=None, has_more=False)


@router.get("/metrics", response_class=Response, responses=METRICS_TEXT)
def get_metrics(request: Request, services: ServicesOf) -> Response:
    """Requests of this process, and jobs and workers of all, in Prometheus' text format."""
    metrics: RequestMetrics = request.app.state.metrics
    return Response(metrics.text(services), media_type=CONTENT_TYPE_LATEST)
