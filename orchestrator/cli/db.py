"""`aurora db`: the database's schema."""

from typing import TYPE_CHECKING

import typer

from orchestrator.cli import opening

if TYPE_CHECKING:
    from orchestrator.parts import Parts

app = typer.Typer(no_args_is_help=True, help="The database's schema: upgrade, current.")


@app.command("upgrade")
def upgrade() -> None:
    """Bring the schema to what this version needs. Safe to run again, and twice at a time."""

    async def work(parts: "Parts") -> tuple[str | None, str]:
        from orchestrator.db import schema

        before = await schema.current(parts.database)
        return before, await schema.upgrade(parts.database)

    before, after = opening.with_parts(work)
    print(f"the schema is at {after}" + (", as before" if before == after else ""))


@app.command("current")
def current() -> None:
    """Say which revision the schema is at. Exit code 2 when this version needs another."""

    async def work(parts: "Parts") -> str:
        from orchestrator.db import schema

        await schema.check(parts.database)
        return schema.head()

    print(f"the schema is at {opening.with_parts(work)}, which is what this version needs")
