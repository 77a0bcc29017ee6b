"""A typed client: submit jobs, follow them, fetch what they made.

    with Client("http://127.0.0.1:8000") as client:
        job = client.submit(spec, name="fashion")
        for job in client.wait(job.id):
            print(job.status, job.latest_metrics)
        client.download(job.id, "model.safetensors", Path("model.safetensors"))

`AsyncClient` has the same methods for `async` code.
"""

from __future__ import annotations

from server.client.asynchronous import AsyncClient
from server.client.calls import DEFAULT_URL
from server.client.errors import (
    ApiError,
    ClientError,
    Conflict,
    DigestMismatch,
    InvalidRequest,
    NoSuchArtifact,
    NotFound,
    TooMany,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from server.client.synchronous import Client

__all__ = [
    "DEFAULT_URL",
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "Conflict",
    "DigestMismatch",
    "InvalidRequest",
    "NoSuchArtifact",
    "NotFound",
    "TooMany",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]
