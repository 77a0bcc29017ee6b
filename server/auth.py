"""Who asks, and whether they may: API keys as bearer tokens.

`Authentication` is a dependency of the whole app, so that a route is closed unless it is named as public. Reading needs
a key of scope `read`, also where a route is named as reading whatever its method; everything else needs one of scope
`submit`; routes of administrators depend on `ADMINS_ONLY` as well.

Dependencies that wait for nothing are coroutines: a plain function costs every request a change of threads.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from server.errors import InsufficientScope, Unauthenticated
from server.middleware import SAFE_METHODS
from server.rates import RateLimiter
from server.services import Services
from worker.settings import Settings
from worker.store import keys
from worker.store.database import Database, DatabaseUnavailable
from worker.store.keys import ApiKey, Scope

_BEARER = HTTPBearer(auto_error=False, description="An API key, as `epochd keys create` prints it: `epk_…`")


class InsecureBind(Exception):
    """The API would be open to other machines; the message says what to do."""


@dataclass(frozen=True)
class Caller:
    """Who sent a request; without a key where none is asked for."""

    key: ApiKey | None

    @property
    def owner_id(self) -> str | None:
        """Whose the things are that the caller makes."""
        return None if self.key is None else self.key.id

    @property
    def only(self) -> str | None:
        """The owner whose things the caller sees; None for all."""
        return self.owner_id if self.key is not None and self.key.scope != Scope.ADMIN else None

    def sees(self, owner_id: str | None) -> bool:
        """Whether things of this owner exist for the caller."""
        return self.only is None or self.only == owner_id


class Authentication:
    """The app's dependency: finds the caller of a request, or refuses it.

    Args:
        public: the functions of the routes that need no key.
        reading: those of the routes that change nothing, whatever their method.
        rates: counts the requests of each key.
    """

    def __init__(
        self,
        public: Collection[Callable[..., Any]],
        reading: Collection[Callable[..., Any]],
        rates: RateLimiter,
    ) -> None:
        self._public = public
        self._reading = reading
        self._rates = rates

    async def __call__(
        self,
        request: Request,
        background: BackgroundTasks,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> None:
        if request.scope["endpoint"] in self._public:
            return
        services: Services = request.app.state.services
        if services.settings.auth == "off":
            _require_loopback(request)
            request.state.caller = Caller(None)
            return
        key = await run_in_threadpool(_authenticate, services.database, credentials)
        request.state.response_headers = self._rates.take(key.id)
        reads = request.method in SAFE_METHODS or request.scope["endpoint"] in self._reading
        _require(key, Scope.READ if reads else Scope.SUBMIT)
        request.state.caller = Caller(key)
        if key.last_used_at is None or datetime.now(UTC) - key.last_used_at > keys.USE_KEPT:
            background.add_task(_note_use, services.database, key)


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


CallerOf = Annotated[Caller, Depends(_caller)]
"""A route's parameter of this type gets the caller."""


async def _admins_only(caller: CallerOf) -> None:
    if caller.key is not None:
        _require(caller.key, Scope.ADMIN)


ADMINS_ONLY = Depends(_admins_only)


def _authenticate(database: Database, credentials: HTTPAuthorizationCredentials | None) -> ApiKey:
    challenge = {"WWW-Authenticate": "Bearer"}
    if credentials is None:
        raise Unauthenticated("expected a header `Authorization: Bearer epk_…`, got none", headers=challenge)
    challenge["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    with database.read() as connection:
        key = keys.find(connection, credentials.credentials)
    if key is None:
        raise Unauthenticated("expected an API key of this server, got another one", headers=challenge)
    if not key.active:
        ended = "revoked" if key.revoked_at is not None else "expired"
        at = f"{key.revoked_at or key.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        raise Unauthenticated(f"expected an active API key, got one that was {ended} at {at}", headers=challenge)
    return key


def _require(key: ApiKey, scope: Scope) -> None:
    if not key.scope.includes(scope):
        challenge = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}
        raise InsufficientScope(f"expected a key of scope {scope}, got one of scope {key.scope}", headers=challenge)


def _require_loopback(request: Request) -> None:
    """Whoever runs the app may bind it to another address than the settings say."""
    if request.client is not None and not is_loopback(request.client.host):
        detail = f"EPOCHD_AUTH=off serves loopback only: expected a client on this machine, got {request.client.host}"
        raise InsufficientScope(detail)


def _note_use(database: Database, key: ApiKey) -> None:
    with suppress(DatabaseUnavailable), database.write() as connection:
        keys.used(connection, key.id)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address; a name other than `localhost` may be anything."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(settings: Settings) -> None:
    """Raise InsecureBind where everybody on the network could ask without a key."""
    if settings.auth == "off" and not is_loopback(settings.host):
        raise InsecureBind(
            "without keys (--dev, EPOCHD_AUTH=off) the server binds loopback only: expected EPOCHD_HOST to be "
            f"127.0.0.1 or ::1, got {settings.host}"
        )


def prepare(settings: Settings) -> None:
    """Bring the database to the newest version, and refuse what nobody or everybody could use.

    Raises:
        InsecureBind: the address is open to other machines, but not safe.
        DatabaseUnavailable: the database is away.
    """
    check_address(settings)
    database = Database(settings.resolved_database_url())
    try:
        database.migrate()
        check_keys(settings, database)
    finally:
        database.close()


def check_keys(settings: Settings, database: Database) -> None:
    """Raise InsecureBind where the API is bound beyond loopback and nobody has a key yet.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    if is_loopback(settings.host):
        return
    with database.read() as connection:
        if not keys.any_active(connection):
            raise InsecureBind(
                f"EPOCHD_HOST={settings.host} is open to other machines, and there is no API key yet: "
                "make one with `epochd keys create NAME --scope admin`"
            )
