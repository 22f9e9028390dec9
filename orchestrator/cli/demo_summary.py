"""What the demo came to: asked of Postgres in plain SQL, shown as a few tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.cli.output import harmless
from orchestrator.parts import Parts

Row = Mapping[str, Any]

ALERTS = """
    SELECT count(*) AS alerts, count(DISTINCT signature) AS kinds,
           count(DISTINCT src_ip) AS sources,
           min(occurred_at) AS earliest, max(occurred_at) AS latest
    FROM alerts
"""
STATES = "SELECT agent, state, count(*) AS tasks FROM tasks GROUP BY agent, state ORDER BY 3 DESC"
SEVERITIES = """
    SELECT output->>'severity' AS severity, count(*) AS results
    FROM results WHERE state = 'succeeded'
    GROUP BY 1
    ORDER BY array_position(ARRAY['critical', 'high', 'medium', 'low', 'info'], output->>'severity')
"""
ATTEMPTS = "SELECT attempt, count(*) AS tasks FROM results GROUP BY attempt ORDER BY attempt"
AUDIT = "SELECT action, count(*) AS events FROM audit_events GROUP BY action ORDER BY 2 DESC, 1"
SLOWEST = """
    SELECT r.task_id, r.agent, r.attempt, a.signature,
           extract(epoch FROM r.finished_at - t.created_at) AS seconds
    FROM results r JOIN tasks t ON t.id = r.task_id
    LEFT JOIN alerts a ON a.id::text = t.metadata->>'alert_id'
    ORDER BY seconds DESC LIMIT 3
"""
WORST = """
    SELECT (r.output->>'score')::int AS score, r.output->>'severity' AS severity,
           r.output->>'action' AS action, a.signature, a.src_ip, a.dest_ip,
           count(*) OVER (PARTITION BY a.signature, a.src_ip) AS alike,
           row_number() OVER (PARTITION BY a.signature, a.src_ip
                              ORDER BY (r.output->>'score')::int DESC, a.occurred_at) AS nth
    FROM results r JOIN alerts a ON a.id::text = r.output->>'alert_id'
    WHERE r.state = 'succeeded'
"""
MOST_SEVERE = f"SELECT * FROM ({WORST}) w WHERE nth = 1 ORDER BY score DESC, alike DESC LIMIT 5"  # noqa: S608
COST = """
    SELECT count(*) AS tasks, count(*) FILTER (WHERE r.attempt > 1) AS started_again,
           count(*) FILTER (WHERE r.state = 'succeeded') AS succeeded,
           extract(epoch FROM max(r.finished_at) - CAST(:killed_at AS timestamptz)) AS seconds,
           extract(epoch FROM percentile_cont(0.5) WITHIN GROUP
                   (ORDER BY r.finished_at - CAST(:killed_at AS timestamptz))) AS median
    FROM results r WHERE r.task_id = ANY(CAST(:task_ids AS uuid[]))
"""
# Of the tasks that nobody killed: from the row to the verdict.
USUAL = """
    SELECT extract(epoch FROM percentile_cont(0.5) WITHIN GROUP
                   (ORDER BY r.finished_at - t.created_at)) AS seconds
    FROM results r JOIN tasks t ON t.id = r.task_id WHERE r.attempt = 1
"""
COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "info": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The answers."""

    alerts: Row
    states: Sequence[Row]
    severities: Sequence[Row]
    attempts: Sequence[Row]
    audit: Sequence[Row]
    slowest: Sequence[Row]
    most_severe: Sequence[Row]
    cost: Row
    usual: Row
    in_hand: int
    lease: timedelta


async def ask(
    parts: Parts,
    *,
    killed_at: datetime,
    task_ids: Sequence[str],
    lease: timedelta,
) -> Told:
    """Ask Postgres."""
    killed = {"killed_at": killed_at, "task_ids": list(task_ids)}
    return Told(
        alerts=(await parts.read(ALERTS, {}))[0],
        states=await parts.read(STATES, {}),
        severities=await parts.read(SEVERITIES, {}),
        attempts=await parts.read(ATTEMPTS, {}),
        audit=await parts.read(AUDIT, {}),
        slowest=await parts.read(SLOWEST, {}),
        most_severe=await parts.read(MOST_SEVERE, {}),
        cost=(await parts.read(COST, killed))[0],
        usual=(await parts.read(USUAL, {}))[0],
        in_hand=len(task_ids),
        lease=lease,
    )


def print_summary(console: Console, told: Told) -> None:
    """Print what happened, and how to go on."""
    found = told.alerts
    _heading(console, "What happened, as Postgres tells it")
    _say(
        console,
        f"{found['alerts']} alerts of {found['kinds']} kinds from {found['sources']} addresses, of"
        f" {found['earliest']:%d %B %Y, %H:%M} to {found['latest']:%H:%M} UTC",
    )
    console.print(
        Padding(
            Columns(
                [
                    _table("tasks", ("agent", "state", "tasks"), told.states),
                    _table("results", ("severity", "results"), told.severities),
                    _table("attempts", ("attempt", "tasks"), told.attempts),
                    _table("audit trail", ("action", "events"), told.audit),
                ],
                padding=(0, 3),
            ),
            (0, 4),
            expand=False,
        )
    )
    _heading(console, "The most severe")
    console.print(Padding(_most_severe(told.most_severe), (0, 4), expand=False))
    _heading(console, "The slowest, from the row to the verdict")
    for row in told.slowest:
        again = f"  attempt {row['attempt']}" if row["attempt"] > 1 else ""
        said = f"{row['seconds']:5.2f} s  {row['agent']}  {harmless(row['signature'] or '')}"
        _say(console, Text.assemble(said, (again, "dim")))
    _print_cost(console, told)
    _print_next(console)


def _most_severe(rows: Sequence[Row]) -> Table:
    table = Table.grid(padding=(0, 2))
    for row in rows:
        colour = COLOURS.get(row["severity"], "")
        table.add_row(
            Text(f"{row['score']:>3} {row['severity']}", colour),
            Text(harmless(row["signature"])),
            Text(f"{row['src_ip']} → {row['dest_ip']}"),
            Text(row["action"]),
            Text(f"{row['alike']} times", "dim"),
        )
    return table


def _print_cost(console: Console, told: Told) -> None:
    cost = told.cost
    _heading(console, "What the kill cost")
    lost = told.in_hand - cost["tasks"]
    _say(console, f"{told.in_hand} tasks were in the killed worker's hands")
    _say(
        console,
        f"{cost['started_again']} were started again by the other worker,"
        f" {cost['succeeded']} succeeded, {lost} were lost",
    )
    _say(
        console,
        f"their verdicts came {cost['median']:.1f} s after the kill; on another machine up to the"
        f" lease later, {told.lease.seconds} s (a task usually waited and ran"
        f" {told.usual['seconds']:.2f} s)",
    )


def _print_next(console: Console) -> None:
    _heading(console, "How to go on")
    for command, what in (
        ("aurora dev", "the same on this machine to stay, with an API; agents reload as you edit"),
        ("aurora alerts ingest FILE", "your own alerts, Suricata's eve.json as it is"),
        ("aurora tasks list", "what became of them; also agents, schedules, dead, audit"),
        ("aurora --help", "everything else"),
    ):
        _say(console, Text.assemble((f"{command:<28}", "bold"), what))
    console.print()


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(f"  {text}", "bold"))


def _say(console: Console, text: str | Text) -> None:
    console.print(Padding(text, (0, 4), expand=False))


def _table(title: str, columns: Sequence[str], rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for name in columns:
        is_number = bool(rows) and isinstance(rows[0][name], int)
        table.add_column(name, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*(Text(str(row[name]), COLOURS.get(str(row[name]), "")) for name in columns))
    return table
