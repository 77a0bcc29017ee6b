"""The document against the server: requests that fit it and requests that do not, made from the document itself."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.python.asgi import shutdown_lifespans

from server.app import create_app
from tests.server.conftest import NO_QUEUE
from tests.server.seeding import Seed
from worker.settings import Settings
from worker.store import keys
from worker.store.keys import Scope

CONFIG = Path(__file__).with_name("schemathesis.toml")
TRAINING_SPECS = ["create_job", "create_plan"]
"""Operations whose every combination of fields takes minutes."""


@schemathesis.serializer("application/offset+octet-stream")
def _bytes(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        redis_url=NO_QUEUE,
        allowed_hosts="testserver",
        rate_limit=10**9,
        webhook_allow="0.0.0.0/8",  # what `http://0` means, the shortest URL
    )


def failures(settings: Settings, config: dict[str, Any]) -> Iterator[str]:
    """What is wrong, each with the request that shows it."""
    app = create_app(settings)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_dict(config))
    num_cases = 0
    try:
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                num_cases += len(event.recorder.checks)
                for checks in event.recorder.checks.values():
                    for check in checks:
                        if check.failure_info is not None:
                            failure, sample = check.failure_info.failure, check.failure_info.code_sample
                            yield f"{event.label} {check.name}: {failure.title}: {failure.message}\n{sample[:2000]}"
            elif isinstance(event, events.NonFatalError):
                yield f"{event.label}: {event.value!r}"
            elif isinstance(event, events.FatalError):
                yield repr(event.exception)
    finally:
        shutdown_lifespans()
    if num_cases < 500:
        yield f"expected some hundred requests, got {num_cases}"


def config_for(seed: Seed, scope: Scope) -> dict[str, Any]:
    with seed.database.write() as c:
        secret = keys.create(c, name="schemathesis", scope=scope)[1]
    return {**tomllib.loads(CONFIG.read_text("utf-8")), "headers": {"Authorization": f"Bearer {secret}"}}


@pytest.mark.filterwarnings("default")
def test_the_server_does_what_the_document_says(settings: Settings, seed: Seed) -> None:
    config = config_for(seed, Scope.ADMIN)
    config["operations"].append({"include-operation-id": TRAINING_SPECS, "phases": {"coverage": {"enabled": False}}})
    found = list(failures(settings, config))
    assert not found, "\n\n".join(found[:5])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("default")
def test_the_server_does_what_the_document_says_for_all_fields_of_a_spec(settings: Settings, seed: Seed) -> None:
    config = config_for(seed, Scope.ADMIN)
    config["generation"] |= {"max-examples": 60, "deterministic": False}
    found = list(failures(settings, config))
    assert not found, "\n\n".join(found[:5])
