"""A network that has forgotten a connection: nothing passes, and nothing ends it."""

import asyncio
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import pytest
from sqlalchemy import text

from orchestrator.db.session import Database
from orchestrator.errors import Unavailable
from orchestrator.streams import connection
from orchestrator.streams.connection import COMMAND_TIMEOUT, Streams
from orchestrator.streams.consumer import BLOCK, Consumer
from orchestrator.streams.names import ORCHESTRATOR, TASKS
from orchestrator.streams.publisher import Publisher
from tests.faults.lines import Lines

GIVEN_UP = 20.0  # seconds: many times what it may take, and still an answer instead of a hang


async def test_a_connection_that_says_nothing_is_given_up(database_url):
    """P4: who waits for a statement or its commit hears that Postgres is away, and asks anew."""
    lines = Lines()
    await lines.start()
    parts = urlsplit(database_url.replace("postgresql://", "postgresql+asyncpg://"))
    port = await lines.lay("line", "postgres", parts.port or 5432)
    login = parts.netloc.rpartition("@")[0]
    url = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}"))
    database = Database(url, pool_size=1, answer_timeout=0.5)
    await database.ping()

    await lines.cut("line")
    with pytest.raises(Unavailable, match="Postgres"):
        async with asyncio.timeout(GIVEN_UP):
            await database.ping()
    await lines.heal("line")

    with pytest.raises(Unavailable, match="Postgres"):
        await _commit_into(lines, database)
    await lines.heal("line")
    await database.ping()
    await database.close()
    await lines.stop()


async def _commit_into(lines: Lines, database: Database) -> None:
    async with asyncio.timeout(GIVEN_UP), database.transaction() as connection:
        await connection.execute(text("SELECT 1"))
        await lines.cut("line")


async def test_a_blocking_read_that_is_not_answered_is_given_up(
    servers, streams, keys, monkeypatch
):
    """P5: whoever waits for news hears nothing of it, and then finds what was delivered to him."""
    # No sooner: a reply that nobody waits for any more is an entry that nobody sees.
    assert connection.READER_TIMEOUT >= BLOCK + COMMAND_TIMEOUT
    monkeypatch.setattr(connection, "READER_TIMEOUT", 0.5)
    lines = Lines()
    await lines.start()
    parts = urlsplit(servers.redis_url)
    port = await lines.lay("line", "redis", parts.port or 6379)
    behind = Streams(urlunsplit(parts._replace(netloc=f"127.0.0.1:{port}")), keys)
    publisher = Publisher(streams, producer="p")
    reader = Consumer(
        behind, group=ORCHESTRATOR, name="a", lease=timedelta(hours=1),
        publisher=publisher,
    )  # fmt: skip
    await reader.watch({keys.tasks: TASKS})
    assert await reader.read(1, block=0.01) == []

    await lines.cut("line", ["down"])
    await publisher.publish_data(TASKS, b"{}")
    async with asyncio.timeout(GIVEN_UP):
        assert await reader.read(1, block=0.01) == []
    await lines.heal("line")
    (found,) = await reader.read(1, block=0.01)

    assert found.times == 1
    await behind.close()
    await lines.stop()
