"""The HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from server import errors, openapi
from server.bell import Bell
from server.middleware import LOOPBACK_HOSTS, BodyLimit, HostsAndOrigins, RequestIds
from server.routes import artifacts, events, health, intents, jobs, logs, metrics
from server.services import Services
from worker.artifacts import BlobStore
from worker.queue import make_celery, ring
from worker.reconcile import Reconciler
from worker.settings import Settings
from worker.store.database import Database

DESCRIPTION = "POST a spec, get a trained CNN. Errors are `application/problem+json`; lists are pages with a cursor."


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API over one job system; `settings` come from the environment when not given."""
    settings = settings or Settings()
    app = FastAPI(
        title="epochd",
        version=version("epochd"),
        description=DESCRIPTION,
        lifespan=partial(_lifespan, settings=settings),
        docs_url=None,  # FastAPI's page loads its scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
    )
    for routes in (jobs, intents, metrics, events, logs, artifacts, health):
        app.include_router(routes.router)
    hosts = (*LOOPBACK_HOSTS, settings.host, *_names(settings.allowed_hosts))
    app.add_middleware(BodyLimit)
    app.add_middleware(HostsAndOrigins, hosts=hosts, origins=_names(settings.allowed_origins))
    app.add_middleware(RequestIds)
    errors.install(app)
    openapi.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    database = Database(settings.resolved_database_url())
    await run_in_threadpool(database.migrate)
    celery = make_celery(settings)
    bell = Bell(partial(ring, celery))
    reconciler = Reconciler(database, celery, settings)
    reconciler.start()
    app.state.services = Services(settings, database, BlobStore(settings.data_dir), celery, bell)
    try:
        yield
    finally:
        reconciler.stop()
        await run_in_threadpool(bell.close)
        await run_in_threadpool(database.close)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
