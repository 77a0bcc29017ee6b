"""The app over a real SQLite store in a temporary folder, without a queue: bells are rung later there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from server.app import create_app
from tests.server.seeding import Seed
from tests.server.serving import Server, serving
from worker.settings import Settings
from worker.store.database import Database

NO_QUEUE = "redis://127.0.0.1:1/0"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", redis_url=NO_QUEUE, auth="off")


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def seed(settings: Settings) -> Iterator[Seed]:
    """Puts jobs into the store as a worker would."""
    database = Database(settings.resolved_database_url())
    database.migrate()
    yield Seed(database, settings.data_dir)
    database.close()


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    """A real uvicorn on a free port."""
    with serving(create_app(settings)) as running:
        yield running
