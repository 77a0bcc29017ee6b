"""Delivers to webhooks: looks for what is to be told, and tells each webhook one thing at a time.

It runs in every API process; the store sees to it that no two of them deliver the same. Webhooks do not wait for each
other, so that a slow receiver holds up nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Final

from starlette.concurrency import run_in_threadpool

from server.receivers import AddressGuard
from server.webhook_sending import send
from worker.store import deliveries, webhooks
from worker.store.database import Database, DatabaseUnavailable
from worker.store.deliveries import Claim, Outcome

POLL_SECONDS: Final = 1.0
MAX_LANES: Final = 64
"""Webhooks that are told something at the same time; further ones wait."""

logger = logging.getLogger(__name__)


class Deliverer:
    """Belongs to the event loop in which it is started."""

    def __init__(self, database: Database, guard: AddressGuard) -> None:
        self._database = database
        self._guard = guard
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watching = _task(self._watch(), "webhooks")

    async def stop(self) -> None:
        """What is being sent is cut off; it is sent again by whoever finds it due."""
        running = [task for task in (self._watching, *self._lanes.values()) if task is not None]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _watch(self) -> None:
        while True:
            try:
                due = await run_in_threadpool(self._due)
            except DatabaseUnavailable as error:
                logger.warning("webhooks wait: %s", error)
                due = []
            for webhook_id in due:
                if webhook_id not in self._lanes and len(self._lanes) < MAX_LANES:
                    self._lanes[webhook_id] = _task(self._tell(webhook_id), webhook_id)
                    self._lanes[webhook_id].add_done_callback(self._leave)
            await asyncio.sleep(POLL_SECONDS)

    def _leave(self, lane: asyncio.Task[None]) -> None:
        del self._lanes[lane.get_name()]

    def _due(self) -> list[str]:
        with self._database.read() as c:
            if not webhooks.any_enabled(c):
                return []
            behind = deliveries.is_behind(c)
        while behind:
            with self._database.write() as c:
                behind = deliveries.enqueue(c)
        with self._database.read() as c:
            return deliveries.due_webhooks(c, datetime.now(UTC))

    async def _tell(self, webhook_id: str) -> None:
        """Deliver what is due to one webhook, one after the other."""
        try:
            while (claim := await run_in_threadpool(self._claim, webhook_id)) is not None:
                outcome = await send(claim, self._guard)
                await run_in_threadpool(self._record, claim, outcome)
                if outcome.error is not None:
                    logger.info("%s was not delivered to %s: %s", claim.delivery.id, webhook_id, outcome.error)
        except DatabaseUnavailable as error:  # the attempt counts as lost after its lease
            logger.warning("webhook %s waits: %s", webhook_id, error)

    def _claim(self, webhook_id: str) -> Claim | None:
        with self._database.write() as c:
            return deliveries.claim(c, webhook_id, datetime.now(UTC))

    def _record(self, claim: Claim, outcome: Outcome) -> None:
        with self._database.write() as c:
            deliveries.record(c, claim.delivery, outcome, datetime.now(UTC))


def _task(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_log_crash)
    return task


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("delivering to webhooks failed (%s)", task.get_name(), exc_info=error)
