"""The models and the migrations describe one schema."""

import warnings

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from orchestrator.db.models import Base


async def test_the_migrations_make_what_the_models_say(database):
    """A column or an index that stands in one of the two alone is a fault."""

    def compared(connection):
        context = MigrationContext.configure(connection)
        with warnings.catch_warnings():
            # Of `ix_alerts_entry`: an index over expressions cannot be compared.
            warnings.filterwarnings("ignore", message=".*ix_alerts_entry")
            return compare_metadata(context, Base.metadata)

    async with database.transaction() as connection:
        found = await connection.run_sync(compared)
    assert found == []
