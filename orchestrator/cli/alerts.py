"""`aurora alerts`: handles alerts until stopped; takes files of them in; lists, acknowledges."""

import json
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from orchestrator.cli import opening
from orchestrator.cli.alert_files import ingest, validate
from orchestrator.cli.moments import Since, moment
from orchestrator.cli.output import Format, Limit, Output, show_list, show_one
from orchestrator.cli.paging import rows
from orchestrator.cli.roles import LogLevel, serve

if TYPE_CHECKING:
    from orchestrator.db.models import AlertRow
    from orchestrator.parts import Parts

app = typer.Typer(
    invoke_without_command=True,
    help="Turn alerts into tasks (runs until stopped); ingest, validate, list, show, ack.",
)
COLUMNS = (
    "id", "kind", "source", "severity", "signature", "signature_id", "category", "action", "src_ip",
    "src_port", "dest_ip", "dest_port", "proto", "app_proto", "direction", "host", "occurred_at",
    "received_at", "task_ids", "entry_id", "acknowledged_at",
    "acknowledged_by",
)  # fmt: skip
SHOWN = (
    "received_at", "severity", "signature", "src_ip", "dest_ip", "source", "acknowledged_by", "id",
)  # fmt: skip
AlertId = Annotated[UUID, typer.Argument(metavar="ALERT")]


class Kind(StrEnum):
    """`alert.AlertKind`, repeated because importing it would cost `--help` its speed."""

    NETWORK = "network"
    CPS = "cps"


class Severity(StrEnum):
    """`alert.Severity`, repeated for the same reason."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


app.command("ingest")(ingest)
app.command("validate")(validate)


@app.callback()
def handle_alerts(context: typer.Context, log_level: LogLevel = "info") -> None:
    """Turn alerts into tasks for the agents whose rules match, until stopped."""
    if context.invoked_subcommand is None:
        serve(["alerts"], log_level)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of an alert: what a normaliser in any language writes."""
    from orchestrator.formats.own import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command("asyncapi")
def print_asyncapi() -> None:
    """Print the AsyncAPI 3 document of the five streams, tasks and results included."""
    from importlib.metadata import version

    from orchestrator.streams.asyncapi import asyncapi
    from orchestrator.streams.names import Keys

    keys = Keys(opening.settings().prefix)
    print(json.dumps(asyncapi(keys, version=version("aurora-orchestrator")), indent=2))


@app.command("list")
def list_alerts(
    *,
    severity: Annotated[Severity | None, typer.Option()] = None,
    min_severity: Annotated[Severity | None, typer.Option(help="This one or a higher one.")] = None,
    kind: Annotated[Kind | None, typer.Option()] = None,
    source: Annotated[str | None, typer.Option(help="Such as suricata.")] = None,
    address: Annotated[str | None, typer.Option(help="Either end of the connection.")] = None,
    src_ip: Annotated[str | None, typer.Option()] = None,
    dest_ip: Annotated[str | None, typer.Option()] = None,
    signature: Annotated[
        str | None, typer.Option(help="Contained in the alert's; case does not matter.")
    ] = None,
    signature_id: Annotated[int | None, typer.Option(min=0)] = None,
    acknowledged: Annotated[
        bool | None, typer.Option("--acknowledged/--unacknowledged", show_default=False)
    ] = None,
    investigation_id: Annotated[UUID | None, typer.Option("--investigation")] = None,
    since: Since = None,
    until: Since = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List alerts, the latest arrival first."""

    async def work(parts: "Parts") -> list[dict[str, Any]]:
        from functools import partial

        from orchestrator.db import listing

        return await rows(
            partial(listing.alerts, parts.database), COLUMNS, limit,
            severity=severity, min_severity=min_severity, kind=kind, source=source,
            address=address, src_ip=src_ip, dest_ip=dest_ip, signature=signature,
            signature_id=signature_id, acknowledged=acknowledged,
            investigation_id=investigation_id and str(investigation_id),
            since=moment(since), until=moment(until),
        )  # fmt: skip

    show_list(opening.with_parts(work), output, columns=SHOWN, nothing="no alerts")


@app.command("show")
def show_alert(alert_id: AlertId, output: Output = Format.TABLE) -> None:
    """Show one alert with everything that its sensor said."""

    async def work(parts: "Parts") -> dict[str, Any]:
        from orchestrator.db import listing
        from orchestrator.db.acknowledging import AlertNotFound

        found = await listing.alert(parts.database, str(alert_id))
        if found is None:
            raise AlertNotFound([str(alert_id)])
        return {name: getattr(found, name) for name in (*COLUMNS, "details")}

    show_one(opening.with_parts(work), output)


@app.command("ack")
def acknowledge_alerts(
    alert_ids: Annotated[list[UUID], typer.Argument(metavar="ALERT...")],
    undo: Annotated[bool, typer.Option("--undo", help="Take the acknowledgement back.")] = False,
) -> None:
    """Note that you see to these alerts; all of them or none."""

    async def work(parts: "Parts") -> list["AlertRow"]:
        from orchestrator.db import acknowledging

        change = acknowledging.unacknowledge if undo else acknowledging.acknowledge
        return await change(parts.database, {*map(str, alert_ids)}, actor=opening.actor())

    for row in opening.with_parts(work):
        print(f"{row.id} {acknowledgement(row.acknowledged_by, row.acknowledged_at)}")


def acknowledgement(by: str | None, at: datetime | None) -> str:
    """Who sees to an alert, in words."""
    return f"acknowledged by {by} at {at:%Y-%m-%d %H:%M:%S}" if by and at else "not acknowledged"
