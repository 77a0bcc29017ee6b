"""For operators and orchestrators: is it alive, can it serve, what is it, what does it take."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from cnn.spec import TrainingSpec
from server import schemas
from server.errors import Unavailable
from server.openapi import problems
from server.schemas import ErrorItem
from server.services import Services, ServicesOf
from worker.queue import num_bells
from worker.store import workers
from worker.store.database import DatabaseUnavailable

router = APIRouter(tags=["operations"])


@router.get("/healthz")
def get_health() -> schemas.Health:
    """200 while the process serves requests, whatever else is away."""
    return schemas.Health(status="ok")


@router.get("/readyz", responses=problems(503))
def get_readiness(services: ServicesOf) -> schemas.Readiness:
    """200 when a job that is submitted now will be trained: database and queue answer, and a worker is there."""
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
    seconds = services.settings.lease_seconds
    try:
        with services.database.read() as connection:
            found = workers.recent(connection, seconds=seconds)
    except DatabaseUnavailable as error:
        unknown = schemas.Check(ok=False, detail="whether a worker is there is unknown without the database")
        return {"database": schemas.Check(ok=False, detail=str(error)), "worker": unknown}
    names = ", ".join(worker.id for worker in found)
    detail = (
        names or f"expected an active worker seen within {seconds:g} s, got none; start one with `python -m worker`"
    )
    return {
        "database": schemas.Check(ok=True, detail="answers"),
        "worker": schemas.Check(ok=bool(found), detail=detail),
    }


def _check_queue(services: Services) -> schemas.Check:
    if num_bells(services.celery) is not None:
        return schemas.Check(ok=True, detail="answers")
    return schemas.Check(ok=False, detail="the queue does not answer (EPOCHD_REDIS_URL)")
