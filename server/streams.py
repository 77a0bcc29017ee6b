"""Server-sent events: what happened to one job or to all, stored events first, then as they come.

A stream can be cut at any moment and continued from the last id that arrived; then nothing is lost or repeated. One
whose client reads too slowly is ended for the same reason.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import Final

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from server import schemas
from server.auth import Caller
from server.errors import TooManyStreams, Unavailable
from server.tailer import MAX_PER_KEY, Tailer
from worker.jobs import Job, JobStatus
from worker.store import event_log, events, jobs
from worker.store.database import Database, DatabaseUnavailable
from worker.store.event_log import LoggedEvent
from worker.store.events import Event

HEARTBEAT_SECONDS: Final = 15.0
SEND_SECONDS: Final = 30.0
"""How long a client may read nothing while there is something to read."""
PAGE: Final = 200
MAX_STREAMS: Final = 1000
BEGIN: Final = "retry: 2000\n\n"
HEARTBEAT: Final = ": heartbeat\n\n"


class EventStream(StreamingResponse):
    """A stream of server-sent events, which no proxy should keep or collect."""

    media_type = "text/event-stream"

    def __init__(self, messages: AsyncGenerator[str]) -> None:
        super().__init__(messages, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._messages = messages

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        try:
            async with aclosing(self._messages):
                await super().stream_response(send_in_time)
        except (TimeoutError, DatabaseUnavailable):
            return  # an answer that is not complete: the client sees a cut, and comes back


def wants_stream(request: Request) -> bool:
    """Whether the `Accept` header names server-sent events."""
    accepted = (part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(","))
    return EventStream.media_type in accepted


def require_room(tailer: Tailer, caller: Caller) -> None:
    """Refuse one more stream where this process, or the caller's key, has as many as it may.

    Raises:
        TooManyStreams: the key has.
        Unavailable: the process has.
    """
    if not tailer.has_room(caller.owner_id):
        detail = (
            f"expected at most {MAX_PER_KEY} open streams and waiting requests with this key, got one more; end one"
        )
        raise TooManyStreams(detail, headers={"Retry-After": "5"})
    if tailer.num_listeners >= MAX_STREAMS:
        detail = f"expected at most {MAX_STREAMS} open streams and waiting requests, got one more; try again"
        raise Unavailable(detail, headers={"Retry-After": "5"})


async def job_stream(
    database: Database, tailer: Tailer, caller: Caller, job_id: str, after: int, types: Collection[str]
) -> AsyncGenerator[str]:
    """The events of a job behind id `after`; `end` when the job has ended and all of them have been sent."""
    yield BEGIN
    with tailer.listen(lambda event: event.job_id == job_id, caller.owner_id) as listener:
        while True:
            stored, job = await run_in_threadpool(_stored, database, job_id, after)
            if stored:
                yield _job_messages(stored, types)
                after = stored[-1].id
            if job is None:
                return
            if after < job.last_event_id:
                continue
            if job.terminal:
                yield _message("end", json.dumps({"status": job.status}))
                return
            # After a gap, which the store fills, and at an end, which the job's row confirms, it is read again.
            is_next = True
            while is_next:
                new = await listener.next(HEARTBEAT_SECONDS)
                if new is None:
                    return
                fresh = [event for event in new if event.id > after]
                is_next = [event.id for event in fresh] == list(range(after + 1, after + 1 + len(fresh)))
                if is_next:
                    yield _job_messages(fresh, types)
                    after += len(fresh)
                    is_next = not any(map(_ends, fresh))


async def global_stream(
    database: Database, tailer: Tailer, caller: Caller, after: int | None, types: Collection[str]
) -> AsyncGenerator[str]:
    """The events of all jobs that the caller sees behind number `after`, or those that come from now on."""
    yield BEGIN

    def wants(event: LoggedEvent) -> bool:
        return (not types or event.type in types) and caller.sees(event.owner_id)

    with tailer.listen(wants, caller.owner_id) as listener:
        if after is None:
            after = await run_in_threadpool(_last_number, database)
            yield f"id: {after}\n\n"  # where a client begins again that is cut before its first event
        while stored := await run_in_threadpool(_logged, database, after, types, caller.only):
            yield _global_messages(stored)
            after = stored[-1].number
        while (new := await listener.next(HEARTBEAT_SECONDS)) is not None:
            fresh = [event for event in new if event.number > after]
            yield _global_messages(fresh)
            after = fresh[-1].number if fresh else after


def _stored(database: Database, job_id: str, after: int) -> tuple[list[Event], Job | None]:
    with database.read() as c:
        found = events.after(c, job_id, after, PAGE)
        return found, jobs.get(c, job_id)


def number_new(database: Database) -> None:
    """Number what has happened until now, though the tailer has not come by yet."""
    with database.read() as c:
        if not event_log.has_unnumbered(c):
            return
    with database.write() as c:
        event_log.give_numbers(c)


def _last_number(database: Database) -> int:
    """That of the last event until now."""
    number_new(database)
    with database.read() as c:
        return event_log.last_number(c)


def _logged(database: Database, after: int, types: Collection[str], owner_id: str | None) -> list[LoggedEvent]:
    with database.read() as c:
        return event_log.after(c, after, PAGE, tuple(types), owner_id)


def _ends(event: Event) -> bool:
    return event.type == "job.status" and JobStatus(event.data["to"]).terminal


def _job_messages(found: Sequence[Event], types: Collection[str]) -> str:
    """The events of these types (of all when none is named); without any, a sign of life."""
    wanted = [event for event in found if not types or event.type in types]
    return "".join(_message(event.type, _json(schemas.Event, event), event.id) for event in wanted) or HEARTBEAT


def _global_messages(found: Sequence[LoggedEvent]) -> str:
    messages = (_message(event.type, _json(schemas.LoggedEvent, event), event.number) for event in found)
    return "".join(messages) or HEARTBEAT


def _json(schema: type[schemas.Event], event: Event) -> str:
    return schema.model_validate(event).model_dump_json()


def _message(type: str, data: str, id: int | None = None) -> str:
    place = "" if id is None else f"id: {id}\n"
    return f"{place}event: {type}\ndata: {data}\n\n"
