"""A network that has forgotten a connection to Postgres: nothing passes, and nothing ends it."""

import asyncio
from urllib.parse import urlsplit, urlunsplit

import pytest
from sqlalchemy import text

from orchestrator.db.session import Database
from orchestrator.errors import Unavailable
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
