"""Reads for agents: any SELECT, in a transaction that cannot write."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from orchestrator.db.session import Database


async def read(database: Database, sql: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows, each as a dict. Raises Unavailable; an error in the SQL is the caller's."""
    async with database.transaction() as connection:
        await connection.execute(text("SET TRANSACTION READ ONLY"))
        found = await connection.execute(text(sql), dict(params))
        return [dict(row._mapping) for row in found]  # noqa: SLF001 - SQLAlchemy's public name
