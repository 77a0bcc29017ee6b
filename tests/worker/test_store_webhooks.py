"""Which events become messages to whom, who may send them, and what becomes of those that nobody takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from cnn.spec import TrainingSpec
from worker.jobs import JobStatus
from worker.store import deliveries, event_log, intents, jobs, keys, webhook_tables, webhooks
from worker.store.database import Database
from worker.store.deliveries import DELAYS, KEPT, LEASE, MAX_ATTEMPTS, Claim, DeliveryStatus, Outcome
from worker.store.keys import Scope
from worker.store.webhooks import EventType, TooManyWebhooks, Webhook

URL = "https://example.com/hooks"
FAILED = Outcome(status_code=500, error="expected a status of 200 to 299, got 500")


def webhook(database: Database, types: Sequence[EventType] = tuple(EventType), owner_id: str | None = None) -> Webhook:
    with database.write() as c:
        return webhooks.create(c, owner_id=owner_id, url=URL, types=types)[0]


def key(database: Database, scope: Scope) -> str:
    with database.write() as c:
        return keys.create(c, name="somebody", scope=scope)[0].id


def cancelled(database: Database, spec: TrainingSpec, owner_id: str | None = None) -> str:
    """A job with two events: queued, and cancelled."""
    with database.write() as c:
        job = jobs.create(c, spec=spec, name="mine", owner_id=owner_id)
        intents.request_cancel(c, job.id)
    number(database)
    return job.id


def number(database: Database) -> None:
    with database.write() as c:
        event_log.give_numbers(c)


def enqueue(database: Database, limit: int = 500) -> None:
    more = True
    while more:
        with database.write() as c:
            more = deliveries.enqueue(c, limit=limit)


def told(database: Database, webhook: Webhook) -> list[tuple[str, str | None]]:
    """Type and job of each message, by type."""
    with database.read() as c:
        return sorted((each.type, each.job_id) for each in deliveries.page(c, webhook.id, limit=1000))


def claim(database: Database, webhook: Webhook, now: datetime) -> Claim | None:
    with database.write() as c:
        return deliveries.claim(c, webhook.id, now)


def record(database: Database, claim: Claim, outcome: Outcome, now: datetime) -> None:
    with database.write() as c:
        deliveries.record(c, claim.delivery, outcome, now)


def attempt_test(database: Database, webhook: Webhook, outcome: Outcome, now: datetime) -> None:
    """A message that tells nothing, and the outcome of its first attempt."""
    with database.write() as c:
        deliveries.add_test(c, webhook)
    claimed = claim(database, webhook, datetime.now(UTC))
    assert claimed is not None
    record(database, claimed, outcome, now)


def only_delivery(database: Database, webhook: Webhook) -> deliveries.Delivery:
    with database.read() as c:
        (delivery,) = deliveries.page(c, webhook.id, limit=2)
    return delivery


def test_there_is_a_type_for_every_status() -> None:
    assert list(EventType) == [f"job.{status}" for status in JobStatus]


@pytest.mark.parametrize("limit", [1, 3, 500])
def test_every_event_of_the_wanted_types_is_told_once(database: Database, spec: TrainingSpec, limit: int) -> None:
    every, ends = webhook(database), webhook(database, [EventType.CANCELLED])
    ids = [cancelled(database, spec) for _ in range(5)]
    enqueue(database, limit)
    enqueue(database, limit)
    assert told(database, ends) == [("job.cancelled", job_id) for job_id in ids]
    assert told(database, every) == [(type, job_id) for type in ("job.cancelled", "job.queued") for job_id in ids]
    with database.read() as c:
        assert not deliveries.is_behind(c)


def test_a_message_says_what_happened_and_where_to_look(database: Database, spec: TrainingSpec) -> None:
    receiver = webhook(database, [EventType.CANCELLED])
    job_id = cancelled(database, spec)
    enqueue(database)
    message = json.loads(only_delivery(database, receiver).body)
    with database.read() as c:
        event = event_log.after(c, 0, 10)[-1]
    assert datetime.fromisoformat(message.pop("timestamp")) == event.at
    path = f"/v1/jobs/{job_id}"
    links = {name: f"{path}/{name}" for name in ("events", "metrics", "logs", "artifacts")}
    assert message == {
        "type": "job.cancelled",
        "data": {
            "job_id": job_id,
            "name": "mine",
            "status": "cancelled",
            "from": "queued",
            "reason": event.data["reason"],
            "attempt": 0,
            "event_id": 2,
            "links": {"self": path, **links},
        },
    }


def test_what_happened_before_is_not_told(database: Database, spec: TrainingSpec) -> None:
    cancelled(database, spec)
    first = webhook(database)
    job_id = cancelled(database, spec)
    second = webhook(database)
    enqueue(database)
    assert told(database, first) == [("job.cancelled", job_id), ("job.queued", job_id)]
    assert told(database, second) == []


def test_a_process_that_dies_on_the_way_loses_and_repeats_nothing(database: Database, spec: TrainingSpec) -> None:
    receiver = webhook(database, [EventType.CANCELLED])
    job_id = cancelled(database, spec)

    def die() -> None:
        with database.write() as c:
            deliveries.enqueue(c)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    assert told(database, receiver) == []
    with database.read() as c:
        assert deliveries.is_behind(c)
    enqueue(database)
    assert told(database, receiver) == [("job.cancelled", job_id)]


def test_several_processes_make_each_message_once(database: Database, spec: TrainingSpec) -> None:
    receiver = webhook(database, [EventType.CANCELLED])
    ids = [cancelled(database, spec) for _ in range(20)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: enqueue(database, 3), range(4)))
    assert told(database, receiver) == [("job.cancelled", job_id) for job_id in ids]


def test_owners_are_told_of_their_jobs_and_administrators_of_all(database: Database, spec: TrainingSpec) -> None:
    mine, other, admin = key(database, Scope.SUBMIT), key(database, Scope.SUBMIT), key(database, Scope.ADMIN)
    receivers = {owner: webhook(database, [EventType.CANCELLED], owner) for owner in (mine, other, admin, None)}
    job_id = cancelled(database, spec, mine)
    enqueue(database)
    expected = [("job.cancelled", job_id)]
    assert {owner: told(database, receiver) for owner, receiver in receivers.items()} == {
        mine: expected,
        other: [],
        admin: expected,
        None: expected,
    }


def test_a_revoked_key_is_told_nothing_more(database: Database, spec: TrainingSpec) -> None:
    owner = key(database, Scope.SUBMIT)
    receiver = webhook(database, [EventType.CANCELLED], owner)
    cancelled(database, spec, owner)
    enqueue(database)
    now = datetime.now(UTC)
    with database.read() as c:
        assert deliveries.due_webhooks(c, now) == [receiver.id]
    with database.write() as c:
        keys.revoke(c, owner)
    cancelled(database, spec, owner)
    enqueue(database)
    with database.read() as c:
        assert deliveries.due_webhooks(c, now) == []
    assert claim(database, receiver, now) is None
    assert len(told(database, receiver)) == 1


def test_a_key_has_room_for_twenty(database: Database) -> None:
    for _ in range(20):
        webhook(database)
    with pytest.raises(TooManyWebhooks):
        webhook(database)
    webhook(database, owner_id=key(database, Scope.SUBMIT))


def test_a_delivery_is_sent_by_one_at_a_time(database: Database) -> None:
    receiver = webhook(database)
    with database.write() as c:
        for _ in range(8):
            deliveries.add_test(c, receiver)
    now = datetime.now(UTC)
    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(lambda _: claim(database, receiver, now), range(9)))
    assert len({each.delivery.id for each in claims if each is not None}) == 8
    assert claims.count(None) == 1


def test_who_was_overtaken_changes_nothing(database: Database) -> None:
    receiver = webhook(database)
    with database.write() as c:
        deliveries.add_test(c, receiver)
    now = datetime.now(UTC)
    first = claim(database, receiver, now)
    assert first is not None
    assert claim(database, receiver, now + LEASE - timedelta(seconds=1)) is None
    second = claim(database, receiver, now + LEASE)
    assert second is not None
    assert (second.delivery.id, second.delivery.body) == (first.delivery.id, first.delivery.body)
    assert second.delivery.attempts == 2
    record(database, first, Outcome(status_code=200), now + LEASE)
    assert only_delivery(database, receiver).status == DeliveryStatus.PENDING
    record(database, second, Outcome(status_code=204), now + LEASE)
    done = only_delivery(database, receiver)
    assert (done.status, done.status_code, done.attempts, done.due_at) == (DeliveryStatus.DELIVERED, 204, 2, None)
    with database.read() as c:
        assert webhooks.get(c, receiver.id).last_delivered_at == done.finished_at == now + LEASE


def test_it_is_tried_for_more_than_a_day_and_then_the_webhook_is_disabled(database: Database) -> None:
    receiver = webhook(database)
    with database.write() as c:
        deliveries.add_test(c, receiver)
    begin = now = datetime.now(UTC)
    waits = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        claimed = claim(database, receiver, now)
        assert claimed is not None
        assert claimed.delivery.attempts == attempt
        record(database, claimed, FAILED, now)
        due = only_delivery(database, receiver).due_at
        if due is not None:
            waits.append(due - now)
            assert claim(database, receiver, due - timedelta(seconds=1)) is None
            now = due
    hours = [5 / 3600, 5 / 60, 0.5, 2, 5, 10, 14]
    assert len(waits) == len(hours)
    for wait, expected in zip(waits, hours, strict=True):
        assert expected <= wait / timedelta(hours=1) <= 1.2 * expected
    assert now - begin >= timedelta(hours=31.5)
    given_up = only_delivery(database, receiver)
    assert (given_up.status, given_up.attempts, given_up.error) == (DeliveryStatus.FAILED, 8, FAILED.error)
    with database.read() as c:
        disabled = webhooks.get(c, receiver.id)
    assert not disabled.enabled
    reason = f"{given_up.id} failed 8 times, and nothing else was taken since; {FAILED.error}"
    assert disabled.disabled_reason == reason


def test_a_webhook_that_takes_other_messages_stays_enabled(database: Database) -> None:
    receiver = webhook(database)
    now = datetime.now(UTC) + timedelta(seconds=1)
    with database.write() as c:
        poison = deliveries.add_test(c, receiver)
        c.execute(update(webhook_tables.deliveries).values(attempts=MAX_ATTEMPTS - 1))
        deliveries.add_test(c, receiver)
    claims = [claim(database, receiver, now) for _ in range(2)]
    for claimed in reversed(claims):
        assert claimed is not None
        record(database, claimed, FAILED if claimed.delivery.id == poison.id else Outcome(status_code=200), now)
    with database.read() as c:
        assert deliveries.get(c, receiver.id, poison.id).status == DeliveryStatus.FAILED
        assert webhooks.get(c, receiver.id).enabled


def test_while_disabled_nothing_is_told_and_enabled_what_was_pending(database: Database, spec: TrainingSpec) -> None:
    receiver = webhook(database, [EventType.CANCELLED])
    before = cancelled(database, spec)
    enqueue(database)
    with database.write() as c:
        webhooks.disable(c, receiver.id, "the receiver answered 410")
    cancelled(database, spec)
    with database.read() as c:
        assert not deliveries.is_behind(c)
        assert deliveries.due_webhooks(c, datetime.now(UTC)) == []
    assert claim(database, receiver, datetime.now(UTC)) is None
    with database.write() as c:
        assert webhooks.enable(c, receiver.id).enabled
    after = cancelled(database, spec)
    enqueue(database)
    assert told(database, receiver) == [("job.cancelled", before), ("job.cancelled", after)]


def test_a_receiver_that_is_gone_is_told_nothing_more(database: Database) -> None:
    receiver = webhook(database)
    gone = Outcome(status_code=410, error="expected 200, got 410", gone=True)
    attempt_test(database, receiver, gone, datetime.now(UTC))
    assert only_delivery(database, receiver).status == DeliveryStatus.FAILED
    with database.read() as c:
        assert "410" in str(webhooks.get(c, receiver.id).disabled_reason)


@pytest.mark.parametrize(
    ("asked", "expected"), [(timedelta(0), DELAYS[0]), (timedelta(hours=1), timedelta(hours=1)), (KEPT, DELAYS[-1])]
)
def test_a_receiver_may_ask_for_time(database: Database, asked: timedelta, expected: timedelta) -> None:
    receiver = webhook(database)
    now = datetime.now(UTC)
    attempt_test(database, receiver, Outcome(status_code=503, error="busy", retry_after=asked), now)
    due = only_delivery(database, receiver).due_at
    assert due is not None
    assert expected <= due - now <= expected * 1.2


def test_after_a_rotation_the_old_secret_signs_for_a_day(database: Database) -> None:
    with database.write() as c:
        receiver, old = webhooks.create(c, owner_id=None, url=URL, types=tuple(EventType))
        _, new = webhooks.rotate(c, receiver.id)
        deliveries.add_test(c, receiver)
        deliveries.add_test(c, receiver)
    now = datetime.now(UTC)
    today, later = claim(database, receiver, now), claim(database, receiver, now + timedelta(hours=25))
    assert today is not None
    assert later is not None
    assert old != new
    assert (today.secrets, later.secrets) == ((new, old), (new,))


def test_finished_deliveries_are_dropped_after_a_week(database: Database, spec: TrainingSpec) -> None:
    receiver = webhook(database, [EventType.CANCELLED])
    for age in (timedelta(days=8), timedelta(days=6)):
        attempt_test(database, receiver, Outcome(status_code=200), datetime.now(UTC) - age)
    job_id = cancelled(database, spec)
    enqueue(database)
    assert told(database, receiver) == [("job.cancelled", job_id), ("webhook.test", None)]


def test_a_webhook_goes_with_its_deliveries(database: Database) -> None:
    receiver = webhook(database)
    with database.write() as c:
        delivery = deliveries.add_test(c, receiver)
        webhooks.remove(c, receiver.id)
        with pytest.raises(deliveries.DeliveryNotFound):
            deliveries.get(c, receiver.id, delivery.id)
        with pytest.raises(webhooks.WebhookNotFound):
            webhooks.remove(c, receiver.id)
