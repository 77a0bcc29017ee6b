"""Uploads: files come in parts, and go on where a broken connection left off.

`POST /v1/uploads` announces a file by its size and SHA-256 and tells how much of it is there already. Each `PATCH`
brings the part that begins at `Upload-Offset`, with its own digest in `Content-Digest` (RFC 9530); a part that does not
arrive whole changes nothing. The last one is followed by a check of the whole.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Header, Request, Response
from pydantic import Field
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from cnn.base import Spec
from server import dataset_schemas
from server.auth import Caller, CallerOf
from server.bodies import JsonRoute
from server.errors import (
    Conflict,
    ContentTooLarge,
    DigestMismatch,
    InsufficientStorage,
    InvalidRequest,
    UnsupportedMediaType,
    UploadDiscarded,
    UploadNotFound,
)
from server.middleware import MAX_PART_BYTES
from server.openapi import Responses, problems
from server.schemas import ErrorItem
from server.services import Services, ServicesOf
from server.submission import PRINTABLE
from server.wording import quoted, shorten
from worker.datasets.incoming import digest_of, receiving, remove_file, room
from worker.store import quotas, uploads
from worker.store.quotas import Usage
from worker.store.uploads import Upload

router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=JsonRoute)

PART_MEDIA_TYPE = "application/offset+octet-stream"
LOCK_SECONDS = 5.0
"""How long a part waits for the one before it, whose connection may just have been lost."""
BLOCK_BYTES = 2**20
_UPLOAD_ID = re.compile(r"up_[0-9a-z]{26}")
_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):")
FOUND: Responses = {200: {"model": dataset_schemas.Upload, "description": "It is there already, or a part of it"}}
PART_BODY = {
    "required": True,
    "content": {PART_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary", "maxLength": MAX_PART_BYTES}}},
}


class UploadCreate(Spec):
    """A file that is going to be sent."""

    bytes: Annotated[int, Field(ge=1, lt=2**53)]
    """Its size."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Its SHA-256 in hex, which is checked when all of it is there."""
    filename: Annotated[str, Field(min_length=1, max_length=255, pattern=PRINTABLE)] | None = None
    """For people."""


@router.post(
    "",
    status_code=201,
    response_model=dataset_schemas.Upload,
    responses=FOUND | problems(400, 408, 413, 415, 422, 503, 507),
)
def create_upload(body: UploadCreate, services: ServicesOf, caller: CallerOf) -> Response:
    """Announce a file. Repeating it finds the upload again, with what has come of it: go on at its `offset`."""
    limit = services.settings.max_upload_bytes
    if body.bytes > limit:
        message = f"expected a file of at most {limit} bytes (EPOCHD_MAX_UPLOAD_BYTES), got one of {body.bytes}"
        raise ContentTooLarge(message)
    with services.database.write() as c:
        upload, is_new = uploads.create(
            c, owner_id=caller.owner_id, filename=body.filename, size=body.bytes, sha256=body.sha256
        )
        if is_new and caller.key is not None:
            quotas.reserve(c, caller.key.id, Usage(stored_bytes=upload.bytes))
        missing = uploads.outstanding(c) - room(services.settings.data_dir)
        if is_new and missing > 0:
            # The exception takes the new row back.
            raise InsufficientStorage(
                f"the disk has {missing} bytes too few for this file and those that are on the way"
            )
    return _answer(upload, status_code=201 if is_new else 200, headers={"Location": f"/v1/uploads/{upload.id}"})


@router.head("/{upload_id}", operation_id="head_upload", response_class=Response, responses=problems(404, 503))
@router.get("/{upload_id}", response_model=dataset_schemas.Upload, responses=problems(404, 503))
def get_upload(upload_id: str, services: ServicesOf, caller: CallerOf) -> Response:
    """How much has come: `offset`, also in the header `Upload-Offset`."""
    return _answer(_find(services, upload_id, caller))


@router.patch(
    "/{upload_id}",
    response_model=dataset_schemas.Upload,
    responses=problems(404, 408, 409, 413, 415, 422, 503),
    openapi_extra={"requestBody": PART_BODY},
)
async def append_part(
    upload_id: str,
    request: Request,
    services: ServicesOf,
    caller: CallerOf,
    upload_offset: Annotated[int, Header(ge=0, lt=2**63)],
    content_digest: Annotated[str, Header(max_length=1000)],
) -> Response:
    """Send the part that begins at `Upload-Offset`; 409 tells the right offset, 422 that the part was damaged."""
    upload = await run_in_threadpool(_find, services, upload_id, caller)
    expected = _part_digest(content_digest)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != PART_MEDIA_TYPE:
        raise UnsupportedMediaType(f"expected Content-Type: {PART_MEDIA_TYPE}, got {quoted(media_type)}")
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        with receiving(services.settings.data_dir, upload_id) as file:
            if file is not None:
                return await _receive(request, services, file, upload, upload_offset, expected)
        if time.monotonic() > deadline:
            raise _conflict(upload, "another part of it is being received")
        await asyncio.sleep(0.05)


@router.delete("/{upload_id}", status_code=204, responses=problems(404, 409, 503))
def delete_upload(upload_id: str, services: ServicesOf, caller: CallerOf) -> None:
    """Throw an upload away; datasets that were registered from it stay."""
    upload = _find(services, upload_id, caller)
    with services.database.write() as c:
        if uploads.in_use(c, upload_id):
            raise _conflict(upload, "a dataset is being validated from it")
        uploads.remove(c, upload_id)
    remove_file(services.settings.data_dir, upload_id)


async def _receive(
    request: Request, services: Services, file: BinaryIO, announced: Upload, offset: int, expected: bytes
) -> Response:
    """Write a part behind what has come; only when all of it is on the disk does it count."""
    upload = await run_in_threadpool(_now, services, announced.id)
    if offset != upload.received or upload.complete:
        raise _conflict(upload, f"it goes on at {upload.received}, got a part for {offset}")
    digest, received = hashlib.sha256(), offset
    file.seek(offset)
    try:
        async for block in _blocks(request):
            received += len(block)
            if received > upload.bytes:
                message = f"expected at most the {upload.bytes - offset} bytes that are missing, got more"
                raise ContentTooLarge(message, headers=_offset_header(upload))
            await run_in_threadpool(_write, file, block, digest)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    if digest.digest() != expected:
        got = base64.b64encode(digest.digest()).decode()
        message = f"expected the bytes that Content-Digest announces, got {received - offset} with sha-256=:{got}:"
        raise DigestMismatch(f"{message}; the upload goes on at {offset}", headers=_offset_header(upload))
    return await run_in_threadpool(_commit, services, file, upload, received)


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks that are worth a thread's while."""
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        parts.append(chunk)
        size += len(chunk)
        if size >= BLOCK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)


def _write(file: BinaryIO, block: bytes, digest: hashlib._Hash) -> None:
    digest.update(block)
    file.write(block)


def _commit(services: Services, file: BinaryIO, upload: Upload, received: int) -> Response:
    """Let a part count: its bytes are on the disk before the row says so."""
    os.fsync(file.fileno())
    complete = received == upload.bytes
    if complete and (got := digest_of(file)) != upload.sha256:
        with services.database.write() as c:
            uploads.remove(c, upload.id)
        remove_file(services.settings.data_dir, upload.id)
        raise UploadDiscarded(
            f"every part came as it was sent, but the whole has SHA-256 {got} and not {upload.sha256}, as announced: "
            "the file has changed meanwhile, or parts of it were sent twice; the upload was thrown away"
        )
    with services.database.write() as c:
        advanced = uploads.advance(c, upload.id, received, complete=complete)
    if advanced is None:
        raise UploadNotFound(f"upload {upload.id} was removed while a part of it came")
    return _answer(advanced)


def _find(services: Services, upload_id: str, caller: Caller) -> Upload:
    with services.database.read() as c:
        return find_upload(c, upload_id, caller)


def _now(services: Services, upload_id: str) -> Upload:
    """The upload as it is after the part before this one."""
    with services.database.read() as c:
        upload = uploads.get(c, upload_id)
    if upload is None:
        raise UploadNotFound(f"upload {upload_id} has just been removed")
    return upload


def find_upload(c: Connection, upload_id: str, caller: Caller) -> Upload:
    """The upload with this id, if it exists for the caller.

    Raises:
        UploadNotFound: there is none.
    """
    upload = uploads.get(c, upload_id) if _UPLOAD_ID.fullmatch(upload_id) else None
    if upload is None or not caller.sees(upload.owner_id):
        raise UploadNotFound(f"expected the id of an upload, got {quoted(upload_id)}")
    return upload


def _part_digest(header: str) -> bytes:
    found = _DIGEST.search(header)
    if found is None:
        item: ErrorItem = {
            "pointer": None,
            "parameter": "content-digest",
            "code": "invalid_digest",
            "message": f"expected sha-256=:<base64>:, got {quoted(header)}",
            "got": shorten(header),
        }
        raise InvalidRequest(f"Content-Digest: {item['message']}", errors=[item])
    return base64.b64decode(found[1])


def _conflict(upload: Upload, reason: str) -> Conflict:
    return Conflict(f"upload {upload.id}: {reason}", headers=_offset_header(upload))


def _offset_header(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.received)}


def _answer(upload: Upload, *, status_code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    content = dataset_schemas.Upload.model_validate(
        {**vars(upload), "offset": upload.received, "complete": upload.complete}
    )
    offset = {**_offset_header(upload), "Upload-Length": str(upload.bytes), "Cache-Control": "no-store"}
    return Response(content.model_dump_json(), status_code, {**offset, **(headers or {})}, "application/json")
