"""What a client submits, and what is checked in the transaction that stores it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator
from sqlalchemy import Connection

from cnn.base import Items, Spec, spec_error
from cnn.datasets import LOCAL_TYPES
from cnn.spec import TrainingSpec
from server.auth import Caller
from server.errors import DuplicateJob, InvalidRequest
from server.registered import check_dataset
from server.schemas import ErrorItem
from server.wording import quoted
from worker.jobs import WEIGHTS, Job, OnDomainChange, allowed_actions
from worker.store import artifacts, jobs, quotas

PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]*$"
"""No control characters, line separators or characters that turn the direction of text."""
ARTIFACTS_PER_WEIGHTS, SMALL_ARTIFACTS_BYTES = 3, 2**20
"""What a job's artifacts are expected to need: the weights in several forms, and files that do not grow with them."""
TAG = r"^[A-Za-z0-9._:/-]{1,64}$"


class SpecBody(Spec):
    """What to train."""

    spec: TrainingSpec

    @model_validator(mode="before")
    @classmethod
    def _refuse_paths(cls, sent: object) -> object:
        """Users give names, never paths: a check of the spec would already open the files."""
        match sent:
            case {"spec": {"dataset": {"type": str(kind)}}} if kind in LOCAL_TYPES:
                message = f"expected a dataset by its name, got {kind}, which names files of the server"
                raise spec_error("local_path", "/spec/dataset/type", message, got=kind)
        return sent


class JobPatch(Spec):
    """How to call a job, and when to train it; what is left out stays as it is."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE)] | None = None
    """For people; need not be unique."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Larger ones are trained first."""
    tags: Annotated[Items[Annotated[str, Field(pattern=TAG)]], Field(max_length=20)] = ()
    """Labels to find jobs by."""


class Limits(Spec):
    """What a job may use."""

    max_runtime_seconds: Annotated[int, Field(ge=1, le=366 * 24 * 3600)] | None = None
    """How long its attempts may run in total; then it stops with a checkpoint and fails. A retry counts anew."""


class JobCreate(SpecBody, JobPatch):
    """What to train, and what to call it."""

    limits: Limits = Limits()
    on_domain_change: Annotated[OnDomainChange, Field(strict=False)] = OnDomainChange.WAIT
    """What to do once the job has begun, and no worker is there whose results would be the same to the byte."""
    on_duplicate: Literal["create", "reuse", "reject"] = "create"
    """What to do where a job of the same resolved spec on the same images is there that has succeeded or still can:
    make another one, answer with that one, or refuse."""


def submit(c: Connection, wanted: JobCreate, caller: Caller) -> tuple[Job, bool]:
    """The job, and whether it was made now: with `on_duplicate: reuse` it may have been there.

    Raises:
        InvalidRequest: the weights to start from or the dataset are not there.
        DuplicateJob: it is there, and must not be.
        QuotaExceeded: the caller's key has no room for it.
    """
    check_dataset(c, wanted.spec)
    check_initial_weights(c, wanted.spec, caller)
    if wanted.on_duplicate != "create":
        duplicate = jobs.duplicate(c, wanted.spec, owner_id=caller.only)
        if duplicate is not None and wanted.on_duplicate == "reject":
            raise _duplicate_job(duplicate)
        if duplicate is not None:
            return duplicate, False
    reserved_bytes = ARTIFACTS_PER_WEIGHTS * wanted.spec.plan().weight_bytes + SMALL_ARTIFACTS_BYTES
    job = jobs.create(
        c,
        spec=wanted.spec,
        name=wanted.name,
        priority=wanted.priority,
        tags=wanted.tags,
        owner_id=caller.owner_id,
        reserved_bytes=reserved_bytes,
        max_runtime_seconds=wanted.limits.max_runtime_seconds,
        on_domain_change=wanted.on_domain_change,
    )
    if caller.key is not None:
        quotas.reserve(c, caller.key.id, quotas.cost(reserved_bytes, job.max_runtime_seconds))
    return job, True


def check_initial_weights(c: Connection, spec: TrainingSpec, caller: Caller) -> None:
    """The job that `training.init_from` names must have delivered weights.

    Raises:
        InvalidRequest: there is no such job, or it has none.
    """
    source = spec.training.init_from
    if source is None:
        return
    job = jobs.get(c, source)
    if job is not None and caller.sees(job.owner_id) and artifacts.get(c, source, WEIGHTS) is not None:
        return
    message = f"expected the id of a job that has {WEIGHTS}, got {quoted(source)}"
    item: ErrorItem = {
        "pointer": "/spec/training/init_from",
        "code": "no_initial_weights",
        "message": message,
        "got": source,
    }
    raise InvalidRequest(f"{item['pointer']}: {message}", errors=[item])


def _duplicate_job(job: Job) -> DuplicateJob:
    actions: list[JsonValue] = list(allowed_actions(job))
    members: dict[str, JsonValue] = {"job_id": job.id, "job_status": str(job.status), "allowed_actions": actions}
    detail = f"expected a spec that no job has had, got that of {job.id}, which is {job.status}"
    return DuplicateJob(detail, members=members)
