"""`aurora audit`: who did what, when."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import opening
from orchestrator.cli.moments import Since, moment
from orchestrator.cli.output import Format, Limit, Output, show_list
from orchestrator.cli.paging import rows

if TYPE_CHECKING:
    from orchestrator.app import Parts

app = typer.Typer(no_args_is_help=True, help="The audit trail: list.")
COLUMNS = (
    "id", "at", "action", "actor", "object_type", "object_id", "before", "after", "detail",
    "producer", "sequence", "recorded_at",
)  # fmt: skip
SHOWN = ("at", "action", "actor", "object_type", "object_id", "after", "detail")


@app.command("list")
def list_audit(
    *,
    object_id: Annotated[
        str | None, typer.Option("--object", help="About this task, schedule, key ...")
    ] = None,
    action: Annotated[str | None, typer.Option(help="Such as task.succeeded.")] = None,
    actor: Annotated[str | None, typer.Option()] = None,
    since: Since = None,
    until: Since = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List audit events, the newest first."""

    async def work(parts: "Parts") -> list[dict[str, Any]]:
        from functools import partial

        from orchestrator.db import listing

        return await rows(
            partial(listing.audit, parts.database), COLUMNS, limit,
            object_id=object_id, action=action, actor=actor,
            since=moment(since), until=moment(until),
        )  # fmt: skip

    show_list(opening.with_parts(work), output, columns=SHOWN, nothing="no audit events")
