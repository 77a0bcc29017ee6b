"""`epochd webhooks`: URLs that are told what becomes of jobs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from server.client import DEFAULT_URL
from server.console import FAILED, AsJson, Url, connect, out, print_json
from server.webhook_schemas import Delivery

app = typer.Typer(no_args_is_help=True, help="URLs that are told what becomes of jobs.")

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Id of the webhook: wh_…")]


@app.command()
def add(
    receiver: Annotated[str, typer.Argument(metavar="RECEIVER", help="The URL that gets the messages.")],
    type: Annotated[
        list[str] | None,
        typer.Option(help="What to tell, such as job.failed; may be given several times. Else that jobs have ended."),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Add a webhook and print its id and its secret, this once."""
    with connect(url) as client:
        webhook = client.webhooks.add(receiver, types=type or ())
    if as_json:
        print_json(webhook)
    else:
        out.print(f"{webhook.id}  {webhook.secret}", markup=False, soft_wrap=True)


@app.command("ls")
def list_webhooks(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List webhooks, newest first."""
    url_column, status_column = Column("url", overflow="fold"), Column("status", overflow="fold")
    types_column = Column("types", no_wrap=True)
    table = Table(Column("id", no_wrap=True), url_column, types_column, status_column, "last delivered", box=None)
    with connect(url) as client:
        for webhook in client.webhooks.list():
            if as_json:
                print_json(webhook)
                continue
            status = "enabled" if webhook.enabled else f"disabled: {webhook.disabled_reason}"
            last = f"{webhook.last_delivered_at:%Y-%m-%d %H:%M}" if webhook.last_delivered_at else "never"
            table.add_row(webhook.id, escape(webhook.url), "\n".join(webhook.types), escape(status), last)
    if not as_json:
        out.print(table)


@app.command("rm")
def remove(webhook_id: WebhookId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Delete a webhook."""
    with connect(url) as client:
        client.webhooks.delete(webhook_id)
    if as_json:
        print_json({"id": webhook_id, "deleted": True})
    else:
        out.print(f"{webhook_id} is deleted")


@app.command("test")
def send_test(webhook_id: WebhookId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Send a message that tells nothing, and say whether the receiver has taken it."""
    with connect(url) as client:
        delivery = client.webhooks.test(webhook_id)
    if as_json:
        print_json(delivery)
    else:
        out.print(_sentence(delivery), markup=False, soft_wrap=True)
    if delivery.status != "delivered":
        raise typer.Exit(FAILED)


@app.command()
def deliveries(webhook_id: WebhookId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List what a webhook was told in the last seven days, newest first."""
    with connect(url) as client:
        for delivery in client.webhooks.deliveries(webhook_id):
            if as_json:
                print_json(delivery)
            else:
                line = f"{delivery.created_at:%Y-%m-%d %H:%M:%S}  {delivery.type}  {delivery.job_id or ''}"
                out.print(f"{line}  {_sentence(delivery)}", markup=False, soft_wrap=True)


@app.command()
def enable(webhook_id: WebhookId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Deliver again after everything had failed for too long."""
    with connect(url) as client:
        webhook = client.webhooks.enable(webhook_id)
    if as_json:
        print_json(webhook)
    else:
        out.print(f"{webhook_id} is enabled")


@app.command()
def rotate(webhook_id: WebhookId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Print a new secret, this once; for 24 hours the old one signs, too."""
    with connect(url) as client:
        webhook = client.webhooks.rotate(webhook_id)
    if as_json:
        print_json(webhook)
    else:
        out.print(webhook.secret, markup=False, soft_wrap=True)


def _sentence(delivery: Delivery) -> str:
    error = f" after {delivery.attempts} attempts: {delivery.error}" if delivery.error else ""
    again = f"; next at {delivery.due_at:%Y-%m-%d %H:%M:%S}Z" if delivery.due_at and delivery.error else ""
    return f"{delivery.id} is {delivery.status}{error}{again}"
