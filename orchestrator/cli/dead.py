"""`aurora dead`: dead letters, messages that were set aside."""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from orchestrator.cli import opening
from orchestrator.cli.output import Format, Limit, Output, show_list, show_one
from orchestrator.cli.paging import rows

if TYPE_CHECKING:
    from orchestrator.parts import Parts

app = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, redrive, drop.")
COLUMNS = (
    "id", "stream", "entry_id", "task_id", "agent", "reason", "detail", "created_at", "closed_at",
    "closed_by", "closed_as", "redriven_task_id",
)  # fmt: skip
SHOWN = ("id", "created_at", "stream", "agent", "reason", "detail", "closed_as")
LetterId = Annotated[UUID, typer.Argument(metavar="LETTER")]


@app.command("list")
def list_letters(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those redriven or dropped.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Such as invalid_input.")] = None,
    agent: Annotated[str | None, typer.Option()] = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List dead letters, the newest first."""

    async def work(parts: "Parts") -> list[dict[str, Any]]:
        from functools import partial

        from orchestrator.db import listing

        return await rows(
            partial(listing.dead_letters, parts.database), COLUMNS, limit,
            is_open=None if everything else True, reason=reason, agent=agent,
        )  # fmt: skip

    show_list(opening.with_parts(work), output, columns=SHOWN, nothing="no dead letters")


@app.command("show")
def show_letter(letter_id: LetterId, output: Output = Format.TABLE) -> None:
    """Show one dead letter with the message as it stood on the stream."""

    async def work(parts: "Parts") -> dict[str, Any]:
        from orchestrator.db import listing
        from orchestrator.db.letters import LetterNotFound

        found = await listing.dead_letter(parts.database, str(letter_id))
        if found is None:
            raise LetterNotFound(str(letter_id))
        return {name: getattr(found, name) for name in (*COLUMNS, "fields")}

    show_one(opening.with_parts(work), output)


@app.command("redrive")
def redrive_letter(letter_id: LetterId) -> None:
    """Say the message again, a task's as a new task, and close the letter."""

    async def work(parts: "Parts") -> str | None:
        from orchestrator.api.redriving import redrive
        from orchestrator.app import api_parts

        letter = await redrive(api_parts(parts), str(letter_id), actor=opening.actor())
        return letter.redriven_task_id

    task_id = opening.with_parts(work)
    print(f"task {task_id}" if task_id else "published again")


@app.command("drop")
def drop_letter(letter_id: LetterId) -> None:
    """Close a letter for good; it stays readable."""

    async def work(parts: "Parts") -> None:
        from orchestrator.db.letters import drop

        await drop(parts.database, str(letter_id), actor=opening.actor())

    opening.with_parts(work)
    print(f"{letter_id} is closed")
