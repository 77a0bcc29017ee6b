"""Predictions: what a trained network says of images."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from cnn.events import NO_MODEL
from server.auth import Caller, CallerOf
from server.errors import (
    InvalidRequest,
    MalformedBody,
    ModelMissing,
    ProblemError,
    Unavailable,
    UnsupportedMediaType,
)
from server.openapi import problems
from server.prediction.forms import FORM
from server.prediction.pool import Model, PoolFull, ProcessFailed, Question
from server.prediction_schemas import DEFAULT_TOP_K, MAX_BYTES, MAX_IMAGES, MAX_TOP_K, Layout, Predictions
from server.queries import QueryParameters
from server.representation import find
from server.schemas import ErrorItem
from server.services import Services, ServicesOf
from server.wording import quoted
from worker.jobs import Job, JobStatus, allowed_actions
from worker.store import artifacts, events
from worker.store.artifacts import Artifact

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/jobs/{job_id}/predict", tags=["jobs"])

NETWORK, LABELS = "model.onnx", "labels.json"
RAW = "application/octet-stream"
ONE_FILE = ("image/", RAW, "application/x-www-form-urlencoded")
"""Beginnings of the media types of a body that is one file; the last is what `curl --data-binary` says of anything."""
_FILE = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "items": _FILE, "minItems": 1, "maxItems": MAX_IMAGES}
BODY = {
    "required": True,
    "content": {
        FORM: {"schema": {"type": "object", "properties": {"image": _FILES}, "required": ["image"]}},
        RAW: {"schema": {**_FILE, "minLength": 1, "maxLength": MAX_BYTES}},
    },
}


class PredictQuery(QueryParameters):
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] = DEFAULT_TOP_K
    """How many classes to name for each image, at most all that there are."""
    layout: Layout | None = None
    """Axes of arrays; without it they are told by the height, width and channels of the network's images."""


@router.post(
    "",
    response_model=Predictions,
    responses=problems(400, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra={"requestBody": BODY},
)
async def predict(
    job_id: str,
    query: Annotated[PredictQuery, Query()],
    request: Request,
    services: ServicesOf,
    caller: CallerOf,
) -> Response:
    """The most probable classes of images, by the job's `model.onnx`, in a process of its own.

    Send a form with one file or several (`curl -F image=@a.png -F image=@b.png`), or one file as the body
    (`curl --data-binary @a.png`). PNG, JPEG, WEBP and BMP are resized and converted as training images are. NPY and NPZ
    have one image or several as uint8, of any number of channels, in the size of the training images.
    """
    job, network, labels = await run_in_threadpool(_exported, services, job_id, caller)
    content_type = _media_type(request)
    model = Model(services.blobs.path(network.sha256), services.blobs.path(labels.sha256))
    mirror = job.spec["training"].get("test_time_augmentation") == "horizontal_flip"
    began = time.perf_counter()
    try:
        with services.predictions.admission():
            question = Question(await request.body(), content_type, query.top_k, mirror, query.layout)
            answer, waited = await services.predictions.ask(model, question)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    except PoolFull as error:
        raise Unavailable(f"too much is being predicted: {error}; try again", headers={"Retry-After": "1"}) from error
    except ProcessFailed as error:
        raise Unavailable(f"the network has not answered: {error}; send fewer images, or try again") from error
    if "refused" in answer:
        raise _refusal(**answer["refused"])
    num_images, seconds = len(answer["data"]), time.perf_counter() - began
    fields = {"job_id": job_id, "images": num_images, "seconds": round(seconds, 6)}
    logger.info("%s: %d images predicted in %.1f ms", job_id, num_images, seconds * 1000, extra={"fields": fields})
    timings = {**answer["timings"], "wait_seconds": waited}
    told = Predictions.model_validate({**answer, "model": NETWORK, "sha256": network.sha256, "timings": timings})
    return Response(told.model_dump_json(), media_type="application/json")


def _exported(services: Services, job_id: str, caller: Caller) -> tuple[Job, Artifact, Artifact]:
    """The job, its network and its labels.

    Raises:
        JobNotFound: there is no such job.
        ModelMissing: it has no network that can be asked.
    """
    with services.database.read() as c:
        job = find(c, job_id, caller)
        network, labels = (artifacts.get(c, job_id, name) for name in (NETWORK, LABELS))
        if network is None or labels is None:
            raise _missing(job, _why_not_exported(c, job))
    return job, network, labels


def _why_not_exported(c: Connection, job: Job) -> str:
    if job.status != JobStatus.SUCCEEDED:
        return f"its network is exported when the job has succeeded, and it is {job.status}"
    warnings = [str(event.data["message"]) for event in events.after(c, job.id, 0, 1000, ["job.warning"])]
    said = [message for message in warnings if message.startswith(NO_MODEL)]
    return said[-1] if said else NO_MODEL


def _missing(job: Job, reason: str) -> ModelMissing:
    members: dict[str, Any] = {"job_status": str(job.status), "allowed_actions": list(allowed_actions(job))}
    return ModelMissing(f"{job.id} cannot predict: {reason}", members=members)


def _media_type(request: Request) -> str:
    """The `Content-Type`, of a form or of a file.

    Raises:
        UnsupportedMediaType: it is of something else, or the body is compressed.
    """
    content_type = request.headers.get("content-type", RAW)
    if not content_type.strip().lower().startswith((FORM, *ONE_FILE)):
        raise UnsupportedMediaType(
            f"expected files as {FORM} (curl -F image=@x.png), or one file as image/png or {RAW} "
            f"(curl --data-binary @x.png), got {quoted(content_type)}"
        )
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMediaType(
            f"expected a body without Content-Encoding, got {quoted(encoding)}", headers={"Accept-Encoding": "identity"}
        )
    return content_type


def _refusal(kind: str, message: str, images: list[dict[str, Any]]) -> ProblemError:
    """What a process says against a question, as a client gets it."""
    if kind == "form":
        return MalformedBody(message)
    items = [_item(**fault) for fault in images]
    return InvalidRequest(": ".join([message, *(item["message"] for item in items[:1])]), errors=items)


def _item(image: int, name: str | None, message: str) -> ErrorItem:
    where = f"image {image}" if name is None else f"image {image}, {quoted(name)}"
    return {"pointer": None, "image": image, "code": "unusable_image", "message": f"{where}: {message}"}
