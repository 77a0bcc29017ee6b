from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from worker.store import keys
from worker.store.database import Database
from worker.store.keys import KeyNotFound, Limits, Scope


def test_only_the_digest_of_a_secret_is_stored(database: Database) -> None:
    with database.write() as c:
        key, secret = keys.create(c, name="laptop", scope=Scope.SUBMIT)
    assert keys.SECRET.fullmatch(secret)
    with database.read() as c:
        stored = [str(value) for value in c.execute(text("SELECT * FROM api_keys")).one()]
        assert keys.find(c, secret) == key
        assert keys.find(c, "epk_" + "0" * 64) is None
    assert hashlib.sha256(secret.encode()).hexdigest() in stored
    assert not any(secret[4:] in value for value in stored)


def test_two_secrets_differ(database: Database) -> None:
    with database.write() as c:
        secrets = {keys.create(c, name="same", scope=Scope.READ)[1] for _ in range(5)}
    assert len(secrets) == 5


def test_an_expired_and_a_revoked_key_are_found_but_not_active(database: Database) -> None:
    now = datetime.now(UTC)
    with database.write() as c:
        expired, _ = keys.create(c, name="old", scope=Scope.READ, expires_at=now - timedelta(seconds=1))
        assert not expired.active
        assert not keys.any_active(c)
        key, secret = keys.create(c, name="new", scope=Scope.READ, expires_at=now + timedelta(hours=1))
        assert key.active
        assert keys.any_active(c)
        revoked = keys.revoke(c, key.id)
        assert not keys.any_active(c)
        assert keys.revoke(c, key.id) == revoked, "the time of the first revocation stays"
        assert keys.find(c, secret) == revoked
    assert not revoked.active


def test_use_is_noted(database: Database) -> None:
    with database.write() as c:
        key, _ = keys.create(c, name="laptop", scope=Scope.READ)
        assert key.last_used_at is None
        keys.used(c, key.id)
        used_at = keys.get(c, key.id).last_used_at
    assert used_at is not None
    assert abs(used_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_keys_are_listed_newest_first_and_their_limits_kept(database: Database) -> None:
    limits = Limits(max_queued=1, max_running=2, max_stored_bytes=3, max_device_seconds=4)
    with database.write() as c:
        first, _ = keys.create(c, name="first", scope=Scope.READ)
        second, _ = keys.create(c, name="second", scope=Scope.ADMIN, limits=limits)
        newest = max(first, second, key=lambda key: key.id)
        oldest = min(first, second, key=lambda key: key.id)
        assert keys.page(c, limit=1) == [newest]
        assert keys.page(c, limit=5, before=newest.id) == [oldest]
        assert keys.get(c, second.id).limits == limits
        with pytest.raises(KeyNotFound):
            keys.get(c, "key_nobody")
        with pytest.raises(KeyNotFound):
            keys.revoke(c, "key_nobody")


def test_each_scope_includes_the_ones_before() -> None:
    included = [(a.value, b.value) for a in Scope for b in Scope if a.includes(b)]
    assert included == [
        ("read", "read"),
        ("submit", "read"),
        ("submit", "submit"),
        ("admin", "read"),
        ("admin", "submit"),
        ("admin", "admin"),
    ]
