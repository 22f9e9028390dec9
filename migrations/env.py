"""Alembic's entry: on the connection that `aurora db upgrade` hands over, or on a URL."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from orchestrator.db.models import TaskRow


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=TaskRow.metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    # `alembic ...` by hand: a developer's door, the same variable as everywhere.
    url = os.environ.get("AURORA_DATABASE_URL", "postgresql://127.0.0.1:5432/aurora")
    asyncio.run(connect_and_run(url.replace("postgresql://", "postgresql+asyncpg://", 1)))
