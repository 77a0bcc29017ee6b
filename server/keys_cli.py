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
from rich.console import Console
from rich.table import Column, Table

if TYPE_CHECKING:
    from sqlalchemy import Connection

CANNOT_SERVE, NOT_FOUND = 3, 4

app = typer.Typer(no_args_is_help=True, help="API keys, in the store of this machine.")
out = Console(highlight=False)


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
) -> None:
    """Make a key and print its secret, this once."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with _store() as connection:
        from worker.store import keys  # noqa: PLC0415 - the client's installation lacks what it needs

        _, secret = keys.create(connection, name=name, scope=keys.Scope(scope), expires_at=expires_at)
    sys.stdout.write(f"{secret}\n")


@app.command("ls")
def list_keys() -> None:
    """List the keys, newest first."""
    table = Table(Column("id", no_wrap=True), "name", "scope", "status", "last used", box=None)
    with _store() as connection:
        from worker.store import keys  # noqa: PLC0415

        for key in keys.page(connection, limit=1000):
            status = "active" if key.active else "revoked" if key.revoked_at else "expired"
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
            table.add_row(key.id, key.name, key.scope, status, used)
    out.print(table)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key: key_…")]) -> None:
    """End a key, from now on and for good."""
    with _store() as connection:
        from worker.store import keys  # noqa: PLC0415

        try:
            keys.revoke(connection, key_id)
        except keys.KeyNotFound:
            sys.stderr.write(f"expected the id of an API key, as `epochd keys ls` shows it, got {key_id}\n")
            raise typer.Exit(NOT_FOUND) from None
    out.print(f"{key_id} is revoked")


@contextmanager
def _store() -> Iterator[Connection]:
    """A transaction in the store that the settings name."""
    from worker.settings import Settings  # noqa: PLC0415
    from worker.store.database import Database, DatabaseUnavailable  # noqa: PLC0415

    database = Database(Settings().resolved_database_url())
    try:
        database.migrate()
        with database.write() as connection:
            yield connection
    except DatabaseUnavailable as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(CANNOT_SERVE) from None
    finally:
        database.close()
