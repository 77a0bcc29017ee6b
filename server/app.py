"""The HTTP application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool

from server import auth, openapi, problems
from server.auth import Authentication
from server.bell import Bell
from server.middleware import LOOPBACK_HOSTS, BodyLimit, HostsAndOrigins, RequestIds
from server.observability import Observation, RequestMetrics
from server.prediction.pool import Limits, Pool
from server.queueing import QueueView
from server.rates import RateLimiter
from server.receivers import AddressGuard
from server.routes import (
    artifacts,
    attempts,
    batch,
    datasets,
    documentation,
    events,
    health,
    intents,
    jobs,
    keys,
    logs,
    metrics,
    operations,
    plans,
    predictions,
    problem_pages,
    ui,
    uploads,
    webhooks,
)
from server.services import Services
from server.tailer import Tailer
from server.webhook_delivery import Deliverer
from worker.artifacts import BlobStore
from worker.queue import make_celery, ring
from worker.reconcile import Reconciler
from worker.settings import Settings, parse_networks
from worker.store.database import Database

DESCRIPTION = "POST a spec, get a trained CNN. Errors are `application/problem+json`; lists are pages with a cursor."

PUBLIC = (
    health.get_health,
    health.get_readiness,
    documentation.get_documentation,
    documentation.get_style,
    problem_pages.list_problems,
    problem_pages.get_problem,
    ui.get_start,
    ui.get_page,
)
"""The routes that need no key. `/openapi.json` needs none either: like its page, it holds nothing of this server."""
READING = (predictions.predict,)
"""The routes that a key of scope `read` may ask though their method is one for changes."""
ROUTES = (
    jobs,
    batch,
    intents,
    attempts,
    metrics,
    events,
    logs,
    artifacts,
    predictions,
    plans,
    uploads,
    datasets,
    keys,
    webhooks,
    operations,
    health,
    documentation,
    problem_pages,
    ui,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API over one job system; `settings` come from the environment when not given.

    Raises:
        InsecureBind: everybody on the network could ask without a key.
    """
    settings = settings or Settings()
    auth.check_address(settings)
    app = FastAPI(
        title="epochd",
        version=version("epochd"),
        description=DESCRIPTION,
        lifespan=partial(_lifespan, settings=settings),
        docs_url=None,  # FastAPI's page loads its scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        dependencies=[Depends(Authentication(PUBLIC, READING, RateLimiter(settings.rate_limit)))],
        responses=openapi.problems(401, 403, 429),
    )
    for routes in ROUTES:
        app.include_router(routes.router)
    app.include_router(keys.own_router)
    app.state.metrics = RequestMetrics()
    hosts = (*LOOPBACK_HOSTS, settings.host, *_names(settings.allowed_hosts))
    app.add_middleware(BodyLimit)
    app.add_middleware(HostsAndOrigins, hosts=hosts, origins=_names(settings.allowed_origins))
    app.add_middleware(Observation, metrics=app.state.metrics)
    app.add_middleware(RequestIds)
    problems.install(app)
    openapi.install(app, PUBLIC)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    database = Database(settings.resolved_database_url())
    await run_in_threadpool(database.migrate)
    await run_in_threadpool(auth.check_keys, settings, database)
    celery = make_celery(settings)
    bell = Bell(partial(ring, celery))
    reconciler = Reconciler(database, celery, settings)
    reconciler.start()
    tailer = Tailer(database)
    queue = QueueView(settings.lease_seconds)
    await run_in_threadpool(tailer.start, asyncio.get_running_loop())
    deliverer = Deliverer(database, AddressGuard(parse_networks(settings.webhook_allow)))
    deliverer.start()
    pool = Pool(Limits(processes=settings.predict_processes, idle=settings.predict_idle_seconds))
    blobs = BlobStore(settings.data_dir)
    app.state.services = Services(settings, database, blobs, celery, bell, tailer, queue, pool)
    try:
        yield
    finally:
        await pool.close()
        reconciler.stop()
        await deliverer.stop()
        await run_in_threadpool(tailer.stop)
        await run_in_threadpool(bell.close)
        await run_in_threadpool(database.close)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
