"""`epochd keys`: API keys, made and revoked in the store itself, because nobody can ask the API before the first one.

It works with `EPOCHD_DATA_DIR` and `EPOCHD_DATABASE_URL`, as the server does; who may read and write those is an
administrator anyway.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue
from rich.markup import escape
from rich.table import Column, Table

from server.console import BAD_INPUT, NOT_FOUND, UNREACHABLE, AsJson, fail, out, print_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from worker.store.keys import ApiKey

app = typer.Typer(no_args_is_help=True, help="API keys, in the store of this machine.")


class Scope(StrEnum):
    """What a key is good for; each includes those before it."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who gets it; for people.")],
    scope: Annotated[Scope, typer.Option(help="What it is good for; each includes those before it.")] = Scope.SUBMIT,
    days: Annotated[float | None, typer.Option(min=0, max=3650, help="How long; else until it is revoked.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret, this once."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with _store() as connection:
        from worker.store import keys  # noqa: PLC0415 - the client's installation lacks what it needs

        key, secret = keys.create(connection, name=name, scope=keys.Scope(scope), expires_at=expires_at)
    if as_json:
        print_json({**_document(key), "secret": secret})
    else:
        sys.stdout.write(f"{secret}\n")


@app.command("ls")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys, newest first."""
    table = Table(Column("id", no_wrap=True), "name", "scope", "status", "last used", box=None)
    with _store() as connection:
        from worker.store import keys  # noqa: PLC0415

        for key in keys.page(connection, limit=1000):
            if as_json:
                print_json(_document(key))
                continue
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
            table.add_row(key.id, escape(key.name), key.scope, _status(key), used)
    if not as_json:
        out.print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key: key_…")], as_json: AsJson = False
) -> None:
    """End a key, from now on and for good."""
    with _store() as connection:
        from worker.store import keys  # noqa: PLC0415

        try:
            key = keys.revoke(connection, key_id)
        except keys.KeyNotFound:
            fail(NOT_FOUND, f"expected the id of an API key, as `epochd keys ls` shows it, got {key_id}")
    if as_json:
        print_json(_document(key))
    else:
        out.print(f"{key_id} is revoked")


def _status(key: ApiKey) -> str:
    return "active" if key.active else "revoked" if key.revoked_at else "expired"


def _document(key: ApiKey) -> dict[str, JsonValue]:
    """Of what is stored, all but the digest of the secret."""
    times = {name: getattr(key, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    written = {name: None if at is None else at.isoformat() for name, at in times.items()}
    return {"id": key.id, "name": key.name, "scope": str(key.scope), "status": _status(key), **written}


@contextmanager
def _store() -> Iterator[Connection]:
    """A transaction in the store that the settings name."""
    try:
        from worker.settings import Settings  # noqa: PLC0415
        from worker.store.database import Database, DatabaseUnavailable  # noqa: PLC0415
    except ModuleNotFoundError as error:
        fail(BAD_INPUT, f"{error}; what `keys` needs is installed with: pip install 'epochd[server]'")

    database = Database(Settings().resolved_database_url())
    try:
        database.migrate()
        with database.write() as connection:
            yield connection
    except DatabaseUnavailable as error:
        fail(UNREACHABLE, str(error))
    finally:
        database.close()
