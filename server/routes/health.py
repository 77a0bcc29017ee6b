"""For operators and orchestrators: is it alive, can it serve, what is it, what does it take."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from cnn.spec import TrainingSpec
from server import operation_schemas as schemas
from server.errors import Unavailable
from server.openapi import problems
from server.schemas import ErrorItem
from server.services import Services, ServicesOf
from worker.queue import num_bells
from worker.store import operations, workers
from worker.store.database import DatabaseUnavailable

router = APIRouter(tags=["operations"])

STUCK_SECONDS = 60.0
"""How long a worker with a free slot may leave a job waiting: its first trainer takes a while to start."""


@router.get("/healthz")
def get_health() -> schemas.Health:
    """200 while the process serves requests, whatever else is away."""
    return schemas.Health(status="ok")


@router.get("/readyz", responses=problems(503))
def get_readiness(services: ServicesOf) -> schemas.Readiness:
    """200 when a job that is submitted now will be trained: database and queue answer, and a worker claims.

    That is: a worker was seen within the lease (`EPOCHD_LEASE_SECONDS`), and it is not so that every such worker has a
    free slot and yet leaves a job that it could train waiting for a minute.
    """
    checks = {**_check_store(services), "queue": _check_queue(services)}
    failed = {name: check for name, check in checks.items() if not check.ok}
    if failed:
        errors: list[ErrorItem] = [
            {"pointer": None, "code": f"{name}_unavailable", "message": check.detail} for name, check in failed.items()
        ]
        detail = "; ".join(check.detail for check in failed.values())
        raise Unavailable(detail, errors=errors, headers={"Retry-After": "2"})
    return schemas.Readiness(status="ready", checks=checks)


@router.get("/v1/version")
def get_version() -> schemas.Version:
    """What runs here."""
    return schemas.Version(version=version("epochd"), api="v1")


@router.get("/v1/schema", response_class=JSONResponse)
def get_schema() -> dict[str, Any]:
    """JSON Schema of `TrainingSpec`, for editors and generators."""
    return TrainingSpec.model_json_schema()


def _check_store(services: Services) -> dict[str, schemas.Check]:
    try:
        with services.database.read() as connection:
            worker = _check_worker(connection, services.settings.lease_seconds)
    except DatabaseUnavailable as error:
        unknown = schemas.Check(ok=False, detail="whether a worker is there is unknown without the database")
        return {"database": schemas.Check(ok=False, detail=str(error)), "worker": unknown}
    return {"database": schemas.Check(ok=True, detail="answers"), "worker": worker}


def _check_worker(connection: Connection, seconds: float) -> schemas.Check:
    found = workers.recent(connection, seconds=seconds)
    if not found:
        start = "start one with `python -m worker`"
        return schemas.Check(ok=False, detail=f"expected an active worker seen within {seconds:g} s, got none; {start}")
    running = operations.running(connection)
    idle = [worker for worker in found if len(running.get(worker.id, ())) < worker.slots]
    stuck = [worker.id for worker in idle if operations.passed_over(connection, worker, seconds=STUCK_SECONDS)]
    if len(stuck) == len(found):
        detail = f"expected {', '.join(stuck)} to claim jobs, got one that waits since {STUCK_SECONDS:g} s; see its log"
        return schemas.Check(ok=False, detail=detail)
    return schemas.Check(ok=True, detail=", ".join(worker.id for worker in found))


def _check_queue(services: Services) -> schemas.Check:
    if num_bells(services.celery) is not None:
        return schemas.Check(ok=True, detail="answers")
    return schemas.Check(ok=False, detail="the queue does not answer (EPOCHD_REDIS_URL)")
