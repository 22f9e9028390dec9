"""The models and the migrations describe one schema."""

import warnings

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from orchestrator.db import schema
from orchestrator.db.models import TaskRow


async def test_the_migrations_make_what_the_models_say(database):
    """A column or an index that stands in one of the two alone is a fault."""

    def compared(connection):
        context = MigrationContext.configure(connection)
        with warnings.catch_warnings():
            # Of `ix_alerts_entry`: an index over expressions cannot be compared.
            warnings.filterwarnings("ignore", message=".*ix_alerts_entry")
            return compare_metadata(context, TaskRow.metadata)

    async with database.transaction() as connection:
        found = await connection.run_sync(compared)
    assert found == []


async def test_asking_for_the_revision_again_keeps_nothing(database):
    """P8: /readyz asks all day long; by alembic each question stayed, with a table of its own."""
    kept = database.engine.sync_engine._compiled_cache
    await schema.check(database)
    before = len(kept)

    for _ in range(5):
        await schema.check(database)

    assert len(kept) == before


async def test_an_empty_database_has_no_revision(database):
    """And the question leaves its transaction whole."""
    async with database.transaction() as connection:
        await connection.execute(text("DROP TABLE alembic_version"))

    assert await schema.current(database) is None
