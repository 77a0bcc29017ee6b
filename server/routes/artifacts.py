"""A job's artifacts: the list, and the files themselves."""

from __future__ import annotations

import base64
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from server import schemas
from server.auth import CallerOf
from server.errors import ArtifactNotFound
from server.files import file_response
from server.openapi import NOT_MODIFIED, body_of, problems
from server.representation import find
from server.services import ServicesOf
from server.wording import quoted
from worker.store import artifacts

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])


@router.get("", responses=problems(404, 503))
def list_artifacts(job_id: str, services: ServicesOf, caller: CallerOf) -> schemas.ArtifactPage:
    """The files that the job has made, the weights first."""
    with services.database.read() as connection:
        find(connection, job_id, caller)
        found = artifacts.list_for(connection, job_id)
    data = tuple(map(schemas.Artifact.model_validate, found))
    return schemas.ArtifactPage(data=data, next_cursor=None, has_more=False)


@router.head("/{name}", operation_id="head_artifact", response_class=Response, responses=problems(404, 416, 503))
@router.get(
    "/{name}",
    response_class=Response,
    responses=body_of("application/octet-stream") | NOT_MODIFIED | problems(404, 416, 503),
)
def get_artifact(job_id: str, name: str, request: Request, services: ServicesOf, caller: CallerOf) -> Response:
    """One file. Its entity tag is its SHA-256; `Range` and `If-Range` continue an interrupted download."""
    with services.database.read() as connection:
        find(connection, job_id, caller)
        found = {artifact.name: artifact for artifact in artifacts.list_for(connection, job_id)}
    if name not in found:
        raise ArtifactNotFound(
            f"expected one of the job's artifacts ({', '.join(found) or 'none yet'}), got {quoted(name)}"
        )
    artifact = found[name]
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    headers = {
        "Cache-Control": "no-cache",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(artifact.name, safe='')}",
        "Repr-Digest": f"sha-256=:{digest}:",
    }
    path = services.blobs.path(artifact.sha256)
    etag = f'"{artifact.sha256}"'
    return file_response(request, path, media_type=artifact.media_type, etag=etag, headers=headers)
