"""`aurora alerts`: handles alerts until stopped; publishes files of them; lists what came in."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import opening
from orchestrator.cli.moments import Since, moment
from orchestrator.cli.output import Format, Limit, Output, show_list
from orchestrator.cli.paging import rows
from orchestrator.cli.roles import LogLevel, serve
from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.app import Parts

app = typer.Typer(
    invoke_without_command=True,
    help="Turn alerts into tasks (runs until stopped), or: publish FILE, list.",
)
COLUMNS = (
    "id", "kind", "source", "severity", "signature", "signature_id", "category", "action", "src_ip",
    "src_port", "dest_ip", "dest_port", "proto", "host", "occurred_at", "received_at", "task_ids",
)  # fmt: skip
SHOWN = ("received_at", "severity", "signature", "src_ip", "dest_ip", "source", "id")
TOGETHER = 200  # entries under way at a time


class NotAnAlertFile(OrchestratorError):
    """A line that is no JSON object."""


@app.callback()
def handle_alerts(context: typer.Context, log_level: LogLevel = "info") -> None:
    """Turn alerts into tasks for the agents whose rules match, until stopped."""
    if context.invoked_subcommand is None:
        serve(["alerts"], log_level)


@app.command("publish")
def publish(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, allow_dash=True, help="JSON lines.")
    ],
    cps: Annotated[
        bool, typer.Option("--cps", help="Alerts of machines and things: aurora:cps:alerts.")
    ] = False,
) -> None:
    """Publish a file of alerts, one JSON object a line; Suricata's eve.json as it is."""
    found = list(read(file))
    sent = opening.with_parts(lambda parts: send(parts, found, cps=cps))
    print(f"{sent} alerts published")


@app.command("list")
def list_alerts(
    *,
    severity: Annotated[str | None, typer.Option(help="info, low, medium, high, critical.")] = None,
    source: Annotated[str | None, typer.Option()] = None,
    src_ip: Annotated[str | None, typer.Option()] = None,
    since: Since = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List alerts, the latest arrival first."""

    async def work(parts: "Parts") -> list[dict[str, Any]]:
        from functools import partial

        from orchestrator.db import listing

        return await rows(
            partial(listing.alerts, parts.database), COLUMNS, limit,
            severity=severity, source=source, src_ip=src_ip, since=moment(since),
        )  # fmt: skip

    show_list(opening.with_parts(work), output, columns=SHOWN, nothing="no alerts")


def read(file: Path) -> Iterator[bytes]:
    """Each line's object, as it stands. Raises NotAnAlertFile, which names the line."""
    opened = contextlib.nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb")
    with opened as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                is_object = isinstance(json.loads(line), dict)
            except ValueError:
                is_object = False
            if not is_object:
                raise NotAnAlertFile(f"{file}, line {number}: not a JSON object; nothing was sent")
            yield line.strip()


async def send(parts: "Parts", alerts: list[bytes], *, cps: bool = False) -> int:
    """Put each on its stream, in order; how many."""
    from orchestrator.streams.names import ALERTS, CPS_ALERTS

    stream = CPS_ALERTS if cps else ALERTS
    await parts.streams.ensure_groups(parts.streams.keys.of(stream), stream)
    for start in range(0, len(alerts), TOGETHER):
        await asyncio.gather(
            *(
                parts.publisher.publish_data(stream, each)
                for each in alerts[start : start + TOGETHER]
            )
        )
    return len(alerts)
