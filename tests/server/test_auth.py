"""Who may ask for what: every route without a key, with too small a one, and with somebody else's."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import update

from server.app import PUBLIC, create_app
from server.auth import InsecureBind, check_address
from tests.server.problems import assert_problem
from tests.server.seeding import SPEC, Seed
from worker.log_format import TextFormatter
from worker.settings import Settings
from worker.store import keys, tables
from worker.store.keys import Scope

pytestmark = pytest.mark.anyio

OPEN_PATHS = {
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/docs/style.css",
    "/problems",
    "/problems/{code}",
    "/",
    "/ui",
    "/ui/{path:path}",
}
ADMIN_PATHS = ("/v1/keys",)
READING_ENDINGS = ("/predict",)
"""Of paths whose methods change nothing."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", redis_url="redis://127.0.0.1:1/0")


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


def bearer(seed: Seed, scope: Scope, name: str = "somebody") -> dict[str, str]:
    with seed.database.write() as c:
        return {"Authorization": f"Bearer {keys.create(c, name=name, scope=scope)[1]}"}


def calls(app: FastAPI, job_id: str = "job_00000000000000000000000000") -> Iterator[tuple[str, str]]:
    """Method and path of every route."""
    for route in iter_route_contexts(app.routes):
        assert route.path is not None
        path = route.path.replace("{job_id}", job_id).replace("{name}", "model.safetensors")
        for method in sorted(route.methods or {"GET"}):
            yield method, path


async def test_no_route_but_the_public_ones_answers_without_a_key(app: FastAPI, http: httpx.AsyncClient) -> None:
    asked = {(method, path) for method, path in calls(app) if path not in OPEN_PATHS}
    assert len(asked) > 25
    for method, path in asked:
        response = await http.request(method, path)
        assert response.status_code == 401, (method, path)
        assert response.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            assert assert_problem(response)["code"] == "unauthenticated"


async def test_the_document_says_what_needs_a_key(app: FastAPI) -> None:
    names = {function.__name__ for function in PUBLIC}
    for path in app.openapi()["paths"].values():
        for operation in path.values():
            public = operation["operationId"] in names
            assert ("security" in operation) is not public
            assert ({"401", "403"} <= set(operation["responses"])) is not public
    assert app.openapi()["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


async def test_a_key_of_too_small_a_scope_is_refused(app: FastAPI, http: httpx.AsyncClient, seed: Seed) -> None:
    headers = {scope: bearer(seed, scope) for scope in Scope}
    for method, path in calls(app):
        if path in OPEN_PATHS:
            continue
        needed = Scope.READ if method in ("GET", "HEAD") or path.endswith(READING_ENDINGS) else Scope.SUBMIT
        if path.startswith(ADMIN_PATHS):
            needed = Scope.ADMIN
        for scope in Scope:
            response = await http.request(method, path, headers=headers[scope])
            refused = response.status_code == 403
            assert refused is not scope.includes(needed), (method, path, scope, response.status_code)
            if refused:
                assert response.headers["www-authenticate"].startswith('Bearer error="insufficient_scope"')
            if refused and method != "HEAD":
                assert assert_problem(response)["code"] == "insufficient_scope"


async def test_jobs_of_others_do_not_exist(app: FastAPI, http: httpx.AsyncClient, seed: Seed) -> None:
    """Every route with a job's id in its path, with the key of somebody else."""
    mine, other, admin = (bearer(seed, scope) for scope in (Scope.SUBMIT, Scope.SUBMIT, Scope.ADMIN))
    job_id = (await http.post("/v1/jobs", json={"spec": SPEC}, headers=mine)).json()["id"]
    templates = {str(route.path) for route in iter_route_contexts(app.routes)}
    assert len([path for path in templates if "{job_id}" in path]) >= 10
    before = seed.get(job_id)
    for method, path in calls(app, job_id):
        if job_id not in path:
            continue
        for headers in ({"Accept": "text/event-stream"}, {"Prefer": "wait=1", "If-None-Match": '"x"'}, {}):
            json = {"priority": 7} if method == "PATCH" else None
            response = await http.request(method, path, headers={**other, **headers}, json=json)
            assert response.status_code == 404, (method, path, response.status_code)
            if method != "HEAD":
                assert assert_problem(response)["code"] == "job_not_found", (method, path)
    assert seed.get(job_id) == before
    for headers in (mine, admin):
        assert (await http.get(f"/v1/jobs/{job_id}", headers=headers)).status_code == 200


async def test_lists_and_the_common_stream_hold_ones_own_jobs(http: httpx.AsyncClient, seed: Seed) -> None:
    mine, other, admin = (bearer(seed, scope) for scope in (Scope.SUBMIT, Scope.READ, Scope.ADMIN))
    job_id = (await http.post("/v1/jobs", json={"spec": SPEC}, headers=mine)).json()["id"]
    seed.queued("made without keys")

    async def seen(path: str, headers: dict[str, str], field: str) -> list[str]:
        return [item[field] for item in (await http.get(path, headers=headers)).json()["data"]]

    for path, field in (("/v1/jobs", "id"), ("/v1/events?types=job.status", "job_id")):
        assert await seen(path, mine, field) == [job_id]
        assert await seen(path, other, field) == []
        assert len(await seen(path, admin, field)) == 2


async def test_what_others_have_is_neither_reused_nor_started_from(http: httpx.AsyncClient, seed: Seed) -> None:
    mine, other = bearer(seed, Scope.SUBMIT), bearer(seed, Scope.SUBMIT)
    source = seed.succeeded({"model.safetensors": b"weights"})
    with seed.database.read() as c:
        key = keys.find(c, mine["Authorization"].removeprefix("Bearer "))
    assert key is not None
    with seed.database.write() as c:
        c.execute(update(tables.jobs).where(tables.jobs.c.id == source.id).values(owner_id=key.id))
    body = {"spec": {**SPEC, "training": {"init_from": source.id}}}
    assert (await http.post("/v1/jobs", json=body, headers=mine)).status_code == 201
    response = await http.post("/v1/jobs", json=body, headers=other)
    assert response.status_code == 422
    assert assert_problem(response)["errors"][0]["code"] == "no_initial_weights"
    reuse = {"spec": SPEC, "on_duplicate": "reuse"}
    assert (await http.post("/v1/jobs", json=reuse, headers=mine)).status_code == 200
    assert (await http.post("/v1/jobs", json=reuse, headers=other)).status_code == 201


async def test_an_idempotency_key_belongs_to_one_caller(http: httpx.AsyncClient, seed: Seed) -> None:
    ids = set()
    for headers in (bearer(seed, Scope.SUBMIT), bearer(seed, Scope.SUBMIT)):
        for _ in range(2):
            response = await http.post("/v1/jobs", json={"spec": SPEC}, headers={**headers, "Idempotency-Key": "k"})
            ids.add(response.json()["id"])
    assert len(ids) == 2


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer epk_" + "0" * 64,
        "Basic ZWpvOmVqbw==",
        "epk_" + "0" * 64,
        "Bearer é",
    ],
)
async def test_what_is_no_key_is_refused(http: httpx.AsyncClient, value: str) -> None:
    response = await http.get("/v1/jobs", headers=[(b"authorization", value.encode())])
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert_problem(response)


async def test_a_key_ends_by_revocation_and_by_time(http: httpx.AsyncClient, seed: Seed) -> None:
    with seed.database.write() as c:
        key, secret = keys.create(c, name="a", scope=Scope.READ)
        _, expired = keys.create(c, name="b", scope=Scope.READ, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await http.get("/v1/jobs", headers={"Authorization": f"bearer {secret}"})).status_code == 200
    with seed.database.write() as c:
        keys.revoke(c, key.id)
    for ended, how in ((secret, "revoked"), (expired, "expired")):
        response = await http.get("/v1/jobs", headers={"Authorization": f"Bearer {ended}"})
        assert response.status_code == 401
        assert how in assert_problem(response)["detail"]
        assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_use_is_noted_once_a_minute(http: httpx.AsyncClient, seed: Seed) -> None:
    headers = bearer(seed, Scope.READ)
    await http.get("/v1/jobs", headers=headers)
    with seed.database.read() as c:
        (first,) = keys.page(c, limit=2)
    assert first.last_used_at is not None
    await http.get("/v1/jobs", headers=headers)
    with seed.database.read() as c:
        assert keys.page(c, limit=2) == [first]


async def test_keys_are_made_listed_limited_and_revoked_over_http(http: httpx.AsyncClient, seed: Seed) -> None:
    admin = bearer(seed, Scope.ADMIN)
    body = {"name": "CI", "scope": "submit", "expires_in_seconds": 3600, "limits": {"max_queued": 2}}
    created = await http.post("/v1/keys", json=body, headers=admin)
    assert created.status_code == 201
    key = created.json()
    secret = key.pop("secret")
    mine = {"Authorization": f"Bearer {secret}"}
    assert (await http.get("/v1/jobs", headers=mine)).status_code == 200
    listed = (await http.get("/v1/keys?limit=1", headers=admin)).json()
    assert listed["data"][0] | {"last_used_at": None} == key
    assert listed["has_more"]
    rest = (await http.get(f"/v1/keys?cursor={listed['next_cursor']}", headers=admin)).json()
    assert [entry["name"] for entry in rest["data"]] == ["somebody"]
    limited = await http.put(f"/v1/keys/{key['id']}/limits", json={"max_running": 1}, headers=admin)
    assert limited.json()["limits"]["max_running"] == 1
    assert limited.json()["limits"]["max_queued"] is None
    revoked = await http.post(f"/v1/keys/{key['id']}/revoke", headers=admin)
    assert not revoked.json()["active"]
    assert (await http.get("/v1/jobs", headers=mine)).status_code == 401
    for call in ("revoke", "limits"):
        method = "PUT" if call == "limits" else "POST"
        response = await http.request(method, f"/v1/keys/key_nobody/{call}", headers=admin, json={})
        assert response.status_code == 404
        assert assert_problem(response)["code"] == "api_key_not_found"


async def test_a_secret_is_neither_stored_nor_logged(
    http: httpx.AsyncClient, seed: Seed, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    admin = bearer(seed, Scope.ADMIN)
    created = await http.post("/v1/keys", json={"name": "a", "scope": "submit"}, headers=admin)
    secret = created.json()["secret"]
    await http.get(f"/v1/jobs?name={secret}", headers={"Authorization": f"Bearer {secret}"})
    await http.get(f"/v1/{secret}", headers={"Authorization": f"Bearer {secret}"})
    stored = b"".join(path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file())
    assert created.json()["id"].encode() in stored
    assert secret[4:].encode() not in stored
    lines = [TextFormatter().format(record) for record in caplog.records if record.name != "httpx"]
    assert secret[4:] not in "".join(lines)


async def test_without_keys_only_this_machine_is_served(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"auth": "off"}))
    async with app.router.lifespan_context(app):
        for host, status_code in (("127.0.0.1", 200), ("::1", 200), ("192.168.1.7", 403)):
            transport = httpx.ASGITransport(app, client=(host, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                assert (await client.get("/v1/jobs")).status_code == status_code


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    check_address(Settings(host=host, auth="off"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "epochd.example"])
def test_other_addresses_are_refused_without_keys(host: str) -> None:
    check_address(Settings(host=host))
    with pytest.raises(InsecureBind, match=rf"binds loopback only: expected EPOCHD_HOST .* got {host}"):
        create_app(Settings(host=host, auth="off"))


async def test_the_app_starts_beyond_loopback_only_when_somebody_has_a_key(settings: Settings, seed: Seed) -> None:
    app = create_app(settings.model_copy(update={"host": "0.0.0.0"}))
    with pytest.raises(InsecureBind, match="epochd keys create NAME"):
        async with app.router.lifespan_context(app):
            pass
    bearer(seed, Scope.ADMIN)
    async with app.router.lifespan_context(app):
        pass


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [(("-m", "server"), 2), (("-m", "server.cli", "up"), 1), (("-m", "server.cli", "up", "--dev"), 1)],
)
def test_a_bind_beyond_loopback_without_keys_is_refused_in_words(
    command: tuple[str, ...], exit_code: int, tmp_path: Path
) -> None:
    environment = {**os.environ, "EPOCHD_DATA_DIR": str(tmp_path), "EPOCHD_HOST": "0.0.0.0", "EPOCHD_PORT": "0"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == exit_code
    assert "Traceback" not in done.stderr
    assert ("binds loopback only" if "--dev" in command else "epochd keys create NAME") in done.stderr


def test_the_command_makes_lists_and_revokes_keys(settings: Settings, seed: Seed) -> None:
    def epochd(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "EPOCHD_DATA_DIR": str(settings.data_dir), "COLUMNS": "120"}
        command = [sys.executable, "-m", "server.cli", "keys", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    secret = epochd("create", "laptop", "--scope", "read", "--days", "1").stdout.strip()
    with seed.database.read() as c:
        key = keys.find(c, secret)
    assert key is not None
    assert (key.name, key.scope, key.active) == ("laptop", Scope.READ, True)
    assert key.expires_at is not None
    assert abs(key.expires_at - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)
    assert [word in epochd("ls").stdout for word in (key.id, "laptop", "active", secret)] == [True, True, True, False]
    assert epochd("revoke", key.id).returncode == 0
    assert "revoked" in epochd("ls").stdout
    unknown = epochd("revoke", "key_x")
    assert (unknown.returncode, "got key_x" in unknown.stderr) == (4, True)
