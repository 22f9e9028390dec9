"""`aurora audit`: who did what, when."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import opening
from orchestrator.cli.moments import Since, moment
from orchestrator.cli.output import Format, Limit, Output, show_list
from orchestrator.cli.paging import rows

if TYPE_CHECKING:
    from orchestrator.parts import Parts

app = typer.Typer(no_args_is_help=True, help="The audit trail: list; each look is in it.")
COLUMNS = (
    "id", "at", "action", "actor", "object_type", "object_id", "before", "after", "detail",
    "producer", "sequence", "recorded_at",
)  # fmt: skip
SHOWN = ("at", "action", "actor", "object_type", "object_id", "after", "detail")


@app.command("list")
def list_audit(
    *,
    object_id: Annotated[
        str | None, typer.Option("--object", help="About this task, schedule, key: its id.")
    ] = None,
    object_type: Annotated[
        str | None, typer.Option("--type", help="About tasks, schedules ...: task, schedule ...")
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="Such as task.succeeded, or 'schedule.*' for all of those.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Who did it, such as key:ak_...")] = None,
    contains: Annotated[
        str | None, typer.Option(help="This text in what was said; with --since.")
    ] = None,
    since: Since = None,
    until: Since = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """Search the audit trail, the newest first."""
    if contains is not None and since is None:
        raise typer.BadParameter(
            "is searched for row by row: say since when, such as --since 1d",
            param_hint="--contains",
        )

    async def work(parts: "Parts") -> list[dict[str, Any]]:
        from functools import partial

        from orchestrator.db.auditing import read_audit

        return await rows(
            partial(read_audit, parts.database, reader=opening.actor()), COLUMNS, limit,
            object_type=object_type, object_id=object_id, action=action, actor=actor,
            contains=contains, since=moment(since), until=moment(until),
        )  # fmt: skip

    show_list(opening.with_parts(work), output, columns=SHOWN, nothing="no audit events")
