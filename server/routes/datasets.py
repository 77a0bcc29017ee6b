"""Datasets of users: registered from uploads, validated by a worker, then immutable."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, TypeAdapter, ValidationError

from cnn.augmentation import Augmentation
from cnn.base import Items, Spec
from cnn.spec import TrainingSpec
from server import dataset_schemas
from server.auth import CallerOf
from server.bodies import JsonRoute, parse
from server.errors import Conflict, DatasetNotReady, InvalidRequest, MalformedBody, Unavailable
from server.files import etag_matches, file_response
from server.idempotency import IdempotentRequest
from server.openapi import NOT_MODIFIED, Responses, body_of, problems
from server.queries import Limit, QueryParameters, Several
from server.registered import DATASET_ID, find_dataset
from server.routes.uploads import find_upload
from server.schemas import ErrorItem
from server.services import Services, ServicesOf
from server.submission import PRINTABLE
from server.validation import error_items
from worker.datasets.formats import Format
from worker.datasets.keeping import delete_dataset, samples_path, sheet_path
from worker.store import datasets, workers
from worker.store.datasets import Dataset, DatasetInUse, DatasetStatus

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=JsonRoute)

MAX_AUGMENTATION_CHARACTERS = 8000
PNG = "image/png"
_AUGMENTATION: TypeAdapter[tuple[Augmentation, ...]] = TypeAdapter(Items[Augmentation])
PENDING: Responses = {202: {"description": "A worker draws it: ask again after `Retry-After` seconds"}}


class DatasetCreate(Spec):
    """What to make of an upload."""

    upload_id: Annotated[str, Field(max_length=64)]
    """A complete upload, which must stay until the validation is done."""
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE)]
    """For people; need not be unique."""
    format: Format
    """What the upload holds, and how it is read."""


class DatasetsQuery(QueryParameters):
    status: Several[DatasetStatus] = ()
    """Only datasets of these statuses, separated by commas."""
    cursor: Annotated[str, Field(pattern=f"^{DATASET_ID.pattern}$")] | None = None
    """`next_cursor` of the page before."""
    limit: Limit = 50


class SamplesQuery(QueryParameters):
    augmentation: Annotated[str, Field(min_length=2, max_length=MAX_AUGMENTATION_CHARACTERS)] | None = None
    """A spec's `augmentation`, a list in JSON, to see what the network will see; without it the images are as they
    are."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the augmentation."""


@router.post(
    "",
    status_code=202,
    response_model=dataset_schemas.Dataset,
    responses=problems(400, 404, 408, 409, 413, 415, 422, 503),
)
def register_dataset(
    body: DatasetCreate, request: IdempotentRequest, services: ServicesOf, caller: CallerOf
) -> Response:
    """Register a dataset. A worker decodes every image of it; `status` becomes `ready`, or `refused` with a report."""

    def create() -> Response:
        upload = find_upload(c, body.upload_id, caller)
        if not upload.complete:
            raise Conflict(f"expected a complete upload, got one with {upload.received} of {upload.bytes} bytes")
        format = body.format.model_dump(mode="json")
        dataset = datasets.create(c, owner_id=caller.owner_id, name=body.name, format=format, upload=upload)
        if dataset is None:
            raise Conflict(f"upload {upload.id} has just expired: send it again")
        return _answer(dataset, status_code=202, headers={"Location": f"/v1/datasets/{dataset.id}"})

    with services.database.write() as c:
        return request.once(c, create)


@router.get("", responses=problems(422, 503))
def list_datasets(
    query: Annotated[DatasetsQuery, Query()], services: ServicesOf, caller: CallerOf
) -> dataset_schemas.DatasetPage:
    """Datasets, newest first."""
    with services.database.read() as c:
        found = datasets.page(
            c, limit=query.limit + 1, owner_id=caller.only, before=query.cursor, statuses=query.status
        )
    page, has_more = found[: query.limit], len(found) > query.limit
    next_cursor = page[-1].id if has_more else None
    return dataset_schemas.DatasetPage(data=tuple(map(_represent, page)), next_cursor=next_cursor, has_more=has_more)


@router.get("/{dataset_id}", response_model=dataset_schemas.Dataset, responses=NOT_MODIFIED | problems(404, 503))
def get_dataset(dataset_id: str, request: Request, services: ServicesOf, caller: CallerOf) -> Response:
    """One dataset, with its report. With `If-None-Match` the answer is 304 while nothing has changed."""
    with services.database.read() as c:
        response = _answer(find_dataset(c, dataset_id, caller))
    if etag_matches(request.headers.get("if-none-match"), response.headers["ETag"]):
        return Response(status_code=304, headers={"ETag": response.headers["ETag"]})
    return response


@router.delete("/{dataset_id}", status_code=204, responses=problems(404, 409, 503))
def delete(dataset_id: str, services: ServicesOf, caller: CallerOf) -> None:
    """Delete a dataset that no job needs any more: 409 while one that has not ended does.

    Records of jobs that have ended keep its id and digest, and their artifacts stay; to `retry` such a job fails with
    `dataset_missing`.
    """
    with services.database.read() as c:
        find_dataset(c, dataset_id, caller)
    try:
        delete_dataset(services.database, services.settings.data_dir, dataset_id)
    except DatasetInUse as error:
        raise Conflict(str(error), members={"job_ids": list(error.job_ids)}) from error


@router.get(
    "/{dataset_id}/samples",
    response_class=Response,
    responses=body_of(PNG) | PENDING | NOT_MODIFIED | problems(404, 409, 416, 422, 503),
)
def get_samples(
    dataset_id: str,
    query: Annotated[SamplesQuery, Query()],
    request: Request,
    services: ServicesOf,
    caller: CallerOf,
) -> Response:
    """A sheet of training images as PNG; through an augmentation it is drawn by a worker: 202 until it is there."""
    with services.database.read() as c:
        dataset = find_dataset(c, dataset_id, caller)
    if dataset.status != DatasetStatus.READY or dataset.digest is None:
        raise DatasetNotReady(f"expected a dataset that is ready, {dataset.id} is {dataset.status}")
    headers = {"Cache-Control": "no-cache"}
    if query.augmentation is None:
        path, etag = samples_path(services.settings.data_dir, dataset.digest), dataset.digest
        return file_response(request, path, media_type=PNG, etag=f'"{etag}"', headers=headers)
    spec = _spec(dataset, query.augmentation, query.seed).model_dump(mode="json")
    key = hashlib.sha256(json.dumps([dataset.digest, spec], sort_keys=True).encode()).hexdigest()
    path = sheet_path(services.settings.data_dir, key)
    if path.is_file():
        return file_response(request, path, media_type=PNG, etag=f'"{key}"', headers=headers)
    return _drawn_later(services, dataset, key, spec)


def _drawn_later(services: Services, dataset: Dataset, key: str, spec: dict[str, Any]) -> Response:
    """Ask a worker for a sheet, unless it has been asked for."""
    with services.database.write() as c:
        if not workers.recent(c, seconds=services.settings.lease_seconds):
            raise Unavailable(
                "expected an active worker, which draws the sheet, got none", headers={"Retry-After": "10"}
            )
        sheet = datasets.want_sheet(c, key=key, dataset_id=dataset.id, spec=spec)
    if sheet.error is not None:
        item: ErrorItem = {
            "pointer": None, "parameter": "augmentation", "code": "cannot_be_drawn", "message": sheet.error,
        }  # fmt: skip
        raise InvalidRequest(f"augmentation: {sheet.error}", errors=[item])
    return Response(status_code=202, headers={"Retry-After": "1", "Cache-Control": "no-store"})


def _spec(dataset: Dataset, augmentation: str, seed: int) -> TrainingSpec:
    """The smallest spec with this augmentation of this dataset, as the sheet is drawn from.

    Raises:
        InvalidRequest: the augmentation is none, or does not fit the dataset.
    """
    value: object = None
    try:
        value = parse(augmentation.encode())
        _AUGMENTATION.validate_python(value)
        return TrainingSpec.model_validate(
            {
                "dataset": {"type": "registered", "id": dataset.id, "content": dataset.content},
                "augmentation": value,
                "model": {"type": "layers", "layers": [{"type": "flatten"}, _classifier(dataset)]},
                "optimizer": {"type": "sgd", "lr": 0.1},
                "split": {"val_fraction": 0},
                "training": {"seed": seed, "batch_size": 1},
            }
        )
    except MalformedBody as error:
        items = list(error.errors)
    except ValidationError as error:
        placed = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        items = error_items(placed, value, _AUGMENTATION.json_schema())
    for item in items:
        where = (item["pointer"] or "").removeprefix("/augmentation")
        item["message"] = f"{where}: {item['message']}" if where else item["message"]
        item["parameter"], item["pointer"] = "augmentation", None
    raise InvalidRequest(f"augmentation: {items[0]['message']}", errors=items)


def _classifier(dataset: Dataset) -> dict[str, Any]:
    assert dataset.content is not None
    return {"type": "linear", "out_features": len(dataset.content["labels"])}


def _represent(dataset: Dataset) -> dataset_schemas.Dataset:
    path = f"/v1/datasets/{dataset.id}"
    links = {"self": path, **({"samples": f"{path}/samples"} if dataset.status == DatasetStatus.READY else {})}
    return dataset_schemas.Dataset.model_validate({**vars(dataset), "links": links})


def _answer(dataset: Dataset, *, status_code: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = _represent(dataset).model_dump_json()
    etag = f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'
    return Response(content, status_code, {**(headers or {}), "ETag": etag}, "application/json")
