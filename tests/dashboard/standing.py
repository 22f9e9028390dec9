"""Servers, a database and a seeded dashboard for a command rather than for a test."""

import argparse
import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from orchestrator.db import schema
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.streams.names import Keys
from tests.benchmarks.w6_growth import FILL
from tests.dashboard.ground import Ground, served
from tests.servers import start_servers


@asynccontextmanager
async def standing(*, port: int = 0, rows: int = 0) -> AsyncIterator[Ground]:
    """A seeded dashboard on servers that go when the block ends; `rows` tasks of the past."""
    with start_servers() as servers:
        name, keys = f"d{secrets.token_hex(4)}", Keys(f"d{secrets.token_hex(4)}")
        admin = await asyncpg.connect(servers.database_url)
        await admin.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        await admin.close()
        settings = Settings(
            redis_url=servers.redis_url,
            database_url=servers.database(name),
            prefix=keys.prefix,
            agents=(),
        )
        database, streams = Database(settings.async_database_url), Streams(servers.redis_url, keys)
        await schema.upgrade(database)
        await streams.ensure_all_groups()
        if rows:
            await _fill(servers.database(name), rows)
        async with served(settings, database, streams, port=port) as ground:
            yield ground
        await streams.close()
        await database.close()


async def _fill(database_url: str, rows: int) -> None:
    connection = await asyncpg.connect(database_url)
    for statement in FILL:
        await connection.execute(statement, rows, timeout=600)
    await connection.execute("VACUUM ANALYZE", timeout=600)
    await connection.close()


async def serve(_: argparse.Namespace) -> None:
    """Until Ctrl-C."""
    async with standing(port=8765) as ground:
        print(ground.url, ground.key, flush=True)
        await asyncio.Event().wait()
