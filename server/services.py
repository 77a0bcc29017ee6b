"""What the routes work with; made when the app starts, taken down when it stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from celery import Celery
from fastapi import Depends, Request

from server.bell import Bell
from server.prediction.pool import Pool
from server.queueing import QueueView
from server.tailer import Tailer
from worker.artifacts import BlobStore
from worker.settings import Settings
from worker.store.database import Database


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    blobs: BlobStore
    celery: Celery
    bell: Bell
    tailer: Tailer
    queue: QueueView
    predictions: Pool


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(_services)]
"""A route's parameter of this type gets the app's services."""
