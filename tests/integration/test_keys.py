"""API keys: what is kept of them, and when they stop working."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import text

from orchestrator.api.auth import CACHE_FOR, KeyCache
from orchestrator.db import keys
from orchestrator.db.session import Database
from orchestrator.errors import ConfigurationError


async def _rows(database: Database, sql: str) -> list[Any]:
    async with database.transaction() as connection:
        return [row._mapping for row in await connection.execute(text(sql))]


async def test_a_key_is_verified_by_its_full_text_alone(database: Database):
    """Another secret, half a key, and text that is no key are nobody."""
    key_id, full = await keys.create_key(database, "ci", ["tasks:read", "tasks:write"])

    found = await keys.verify(database, full)

    assert found is not None
    assert (found.id, found.name) == (key_id, "ci")
    assert found.allows("tasks:read")
    assert not found.allows("admin")
    for other in (key_id, full[:-1], f"{key_id}_{'0' * 64}", full.upper(), "", "ak_", f"{full}0"):
        assert await keys.verify(database, other) is None


async def test_the_secret_is_nowhere_in_the_database(database: Database):
    """Who reads the table cannot use what is in it."""
    key_id, full = await keys.create_key(database, "canary", ["admin"])
    secret = full.removeprefix(f"{key_id}_")

    stored = await _rows(database, "SELECT * FROM api_keys")
    audited = await _rows(database, "SELECT * FROM audit_events")

    assert len(stored) == 1
    assert secret not in f"{stored} {audited}"
    assert await keys.verify(database, f"{key_id}_{stored[0]['hash']}") is None


async def test_making_and_revoking_a_key_is_audited(database: Database):
    """Each in the transaction that does it."""
    key_id, _ = await keys.create_key(database, "ci", ["tasks:read"], actor="cli:ada")
    assert await keys.revoke(database, key_id, actor="cli:bob")
    assert not await keys.revoke(database, key_id, actor="cli:bob")

    audited = await _rows(database, "SELECT action, actor, object_id FROM audit_events ORDER BY at")

    assert [tuple(each.values()) for each in audited] == [
        ("key.created", "cli:ada", key_id),
        ("key.revoked", "cli:bob", key_id),
    ]


async def test_a_revoked_key_stops_working_within_five_seconds(database: Database):
    """The cache of another process may serve it until its time is over, and no longer."""
    clock = [0.0]
    cache = KeyCache(database, clock=lambda: clock[0])
    key_id, full = await keys.create_key(database, "ci", ["tasks:read"])
    assert await cache.verify(full)

    await keys.revoke(database, key_id)
    assert await keys.verify(database, full) is None
    clock[0] = CACHE_FOR

    assert await cache.verify(full) is None
    assert CACHE_FOR < 5


async def test_an_expired_key_stops_working_also_in_the_cache(database: Database):
    """The time of expiry is exact."""
    cache = KeyCache(database, clock=lambda: 0.0)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    _, full = await keys.create_key(database, "ci", ["tasks:read"], start + timedelta(hours=1))

    with time_machine.travel(start + timedelta(minutes=59), tick=False):
        assert await cache.verify(full)
    with time_machine.travel(start + timedelta(hours=1), tick=False):
        assert await cache.verify(full) is None
        assert await keys.verify(database, full) is None


async def test_last_use_is_written_once_a_minute(database: Database):
    """A busy key does not cost a write a request."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    used = []
    _, full = await keys.create_key(database, "ci", ["tasks:read"])

    for seconds in (0, 30, 59, 60, 90):
        with time_machine.travel(start + timedelta(seconds=seconds), tick=False):
            await keys.verify(database, full)
        used.append((await keys.list_keys(database))[0].last_used_at)

    minute = start + timedelta(minutes=1)
    assert used == [start, start, start, minute, minute]


async def test_a_scope_that_does_not_exist_is_refused_with_the_near_one(database: Database):
    """A key that may do less than its maker thinks is found when it is made."""
    with pytest.raises(ConfigurationError, match="did you mean 'tasks:read'"):
        await keys.create_key(database, "ci", ["task:read"])
    with pytest.raises(ConfigurationError, match="without scopes"):
        await keys.create_key(database, "ci", [])
