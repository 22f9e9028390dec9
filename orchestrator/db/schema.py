"""Brings the database's schema to head and says where it stands; alembic behind one door."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from orchestrator.db.session import Database
from orchestrator.errors import SchemaNotAtHead

PACKAGE = Path(__file__).resolve().parent.parent
# Two `aurora db upgrade` at a time wait for each other on this advisory lock.
LOCK = 0x6175726F7261


def config(database_url: str | None = None) -> Config:
    """Alembic's configuration: from the wheel's _migrations, or the checkout's migrations/."""
    packaged = PACKAGE / "_migrations"
    found = Config()
    found.set_main_option(
        "script_location", str(packaged if packaged.is_dir() else PACKAGE.parent / "migrations")
    )
    found.attributes["database_url"] = database_url
    return found


@cache
def head() -> str:
    """The revision that this version needs; finding out reads every migration."""
    found = ScriptDirectory.from_config(config()).get_current_head()
    assert found is not None, "the package has no migrations"  # noqa: S101 - a broken build
    return found


async def current(database: Database) -> str | None:
    """The revision that the database is at; None for an empty one. Raises Unavailable."""
    async with database.transaction() as connection:
        # Not through alembic, which makes another table object for each question: the engine would
        # keep hundreds of statements for them (20 KB each; /readyz asks every second).
        if await connection.scalar(text("SELECT to_regclass('alembic_version')::text")) is None:
            return None
        found: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found


async def check(database: Database) -> None:
    """Raise SchemaNotAtHead unless the schema is the one that this version needs."""
    at = await current(database)
    if at != head():
        raise SchemaNotAtHead(at, head())


async def upgrade(database: Database) -> str:
    """Bring the schema to head; the revision. Safe to run twice at a time."""
    patient = Database(database.url, pool_size=1, answer_timeout=None)  # tables may be large
    try:
        async with patient.transaction() as connection:
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            await connection.execute(text("SET LOCAL lock_timeout = 0"))
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            await connection.run_sync(_upgrade)
    finally:
        await patient.close()
    return head()


def _upgrade(connection: Connection) -> None:
    found = config()
    found.attributes["connection"] = connection
    command.upgrade(found, "head")
