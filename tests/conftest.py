from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL for the tests that run on both databases."""
    server = PostgreSQL()
    yield server
    server.remove()


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """URL of an empty database."""
    with postgresql.empty_database() as url:
        yield url
