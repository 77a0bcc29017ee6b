"""Who tried a job, and how each try ended."""

from __future__ import annotations

from fastapi import APIRouter

from server import schemas
from server.auth import CallerOf
from server.openapi import problems
from server.representation import find
from server.services import ServicesOf
from worker.store import attempts

router = APIRouter(prefix="/v1/jobs/{job_id}/attempts", tags=["jobs"])


@router.get("", responses=problems(404, 503))
def list_attempts(job_id: str, services: ServicesOf, caller: CallerOf) -> schemas.AttemptPage:
    """All attempts at a job: which worker and device, from and up to which step, and why each ended."""
    with services.database.read() as connection:
        find(connection, job_id, caller)
        found = attempts.list_for(connection, job_id)
    data = tuple(schemas.Attempt.model_validate({**vars(attempt), "worker": attempt.worker_id}) for attempt in found)
    return schemas.AttemptPage(data=data, next_cursor=None, has_more=False)
