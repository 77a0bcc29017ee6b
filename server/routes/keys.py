"""API keys: make, list, limit, revoke."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from cnn.base import Spec
from server import key_schemas
from server.auth import ADMINS_ONLY, CallerOf
from server.bodies import JsonRoute
from server.errors import ApiKeyNotFound
from server.openapi import problems
from server.queries import Limit, QueryParameters
from server.services import Services, ServicesOf
from server.submission import PRINTABLE
from server.wording import quoted
from worker.store import keys, quotas
from worker.store.keys import KeyNotFound, Limits, Scope

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute, dependencies=[ADMINS_ONLY])
own_router = APIRouter(prefix="/v1/key", tags=["keys"])

KEY_ID = re.compile(r"key_[0-9a-z]{26}")
TEN_YEARS = 315_360_000
Quota = Annotated[int, Field(ge=0, lt=2**31)] | None
LargeQuota = Annotated[int, Field(ge=0, lt=2**53)] | None


class KeyLimits(Spec):
    """What the jobs of a key may take; null is no limit."""

    max_queued: Quota = None
    """Jobs that wait: queued or paused."""
    max_running: Quota = None
    """Jobs that are trained at once; others wait."""
    max_stored_bytes: LargeQuota = None
    """Artifacts, and what those of jobs that have not ended are expected to need."""
    max_device_seconds: LargeQuota = None
    """Time of all attempts, and what jobs that have not ended may still take."""


class KeyCreate(Spec):
    """Who gets the key, and what it is good for."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE)]
    """For people; need not be unique."""
    scope: Literal["read", "submit", "admin"]
    """`read` sees its own jobs, `submit` makes some, `admin` sees all jobs and makes keys."""
    expires_in_seconds: Annotated[int, Field(ge=1, le=TEN_YEARS)] | None = None
    """How long it is good for; without it, until it is revoked."""
    limits: KeyLimits = KeyLimits()


class KeysQuery(QueryParameters):
    cursor: Annotated[str, Field(pattern=KEY_ID.pattern, max_length=30)] | None = None
    """`next_cursor` of the page before."""
    limit: Limit = 50


@router.post("", status_code=201, responses=problems(400, 408, 413, 415, 422, 503))
def create_key(body: KeyCreate, services: ServicesOf) -> key_schemas.NewApiKey:
    """Make a key. Its `secret` is in this answer and nowhere else: only its SHA-256 is stored."""
    seconds = body.expires_in_seconds
    expires_at = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
    limits = Limits(**body.limits.model_dump())
    with services.database.write() as connection:
        key, secret = keys.create(
            connection, name=body.name, scope=Scope(body.scope), expires_at=expires_at, limits=limits
        )
    return key_schemas.NewApiKey.model_validate({**vars(key), "active": key.active, "secret": secret})


@router.get("", responses=problems(422, 503))
def list_keys(query: Annotated[KeysQuery, Query()], services: ServicesOf) -> key_schemas.ApiKeyPage:
    """Keys, newest first, without their secrets."""
    with services.database.read() as connection:
        found = keys.page(connection, limit=query.limit + 1, before=query.cursor)
    page, has_more = found[: query.limit], len(found) > query.limit
    data = tuple(map(key_schemas.ApiKey.model_validate, page))
    return key_schemas.ApiKeyPage(data=data, next_cursor=page[-1].id if has_more else None, has_more=has_more)


@own_router.get("", responses=problems(404, 503))
def get_own_key(services: ServicesOf, caller: CallerOf) -> key_schemas.UsedApiKey:
    """The key that you ask with, its limits, and what it takes of them."""
    if caller.key is None:
        raise ApiKeyNotFound("this server asks for no keys (EPOCHD_AUTH=off)")
    return _with_usage(services, caller.key.id)


@router.get("/{key_id}", responses=problems(404, 503))
def get_key(key_id: str, services: ServicesOf) -> key_schemas.UsedApiKey:
    """One key, its limits, and what it takes of them."""
    return _with_usage(services, key_id)


@router.put("/{key_id}/limits", responses=problems(400, 404, 408, 413, 415, 422, 503))
def limit_key(key_id: str, body: KeyLimits, services: ServicesOf) -> key_schemas.ApiKey:
    """Set all limits of a key. Jobs that are there go on; what is over a limit only takes no more."""
    try:
        with services.database.write() as connection:
            key = keys.limit(connection, key_id, Limits(**body.model_dump()))
    except KeyNotFound:
        raise _not_found(key_id) from None
    return key_schemas.ApiKey.model_validate(key)


@router.post("/{key_id}/revoke", responses=problems(404, 503))
def revoke_key(key_id: str, services: ServicesOf) -> key_schemas.ApiKey:
    """End a key, from now on and for good; its jobs go on. Repeating it is harmless."""
    try:
        with services.database.write() as connection:
            key = keys.revoke(connection, key_id)
    except KeyNotFound:
        raise _not_found(key_id) from None
    return key_schemas.ApiKey.model_validate(key)


def _with_usage(services: Services, key_id: str) -> key_schemas.UsedApiKey:
    try:
        with services.database.read() as connection:
            key, usage = keys.get(connection, key_id), quotas.usage(connection, key_id)
    except KeyNotFound:
        raise _not_found(key_id) from None
    return key_schemas.UsedApiKey.model_validate({**vars(key), "active": key.active, "usage": usage})


def _not_found(key_id: str) -> ApiKeyNotFound:
    return ApiKeyNotFound(f"expected the id of an API key, got {quoted(key_id)}")
