"""W6: how cost grows: with the backlog, with the payload, with the rows that are there already."""

import math
import time
from typing import Any

from sqlalchemy import event

from orchestrator.db import listing
from tests.benchmarks import backlog
from tests.benchmarks.case import Case, Sizes
from tests.benchmarks.drain import drained
from tests.benchmarks.figures import Sample, percentile
from tests.benchmarks.ground import Ground

HEAVY = 2  # rounds of what takes minutes
OF = "W6 backlog 10,000"

# A past of so many tasks, spread over a month: nearly all succeeded, ids in order of time.
_ID = "(lpad(to_hex(start + i * step), 12, '0') || '7000' || '8' || substr(md5(i::text), 1, 15))"
_PAST = f"""
    SELECT {_ID}::uuid AS id, to_timestamp((start + i * step) / 1000.0) AS at, i,
           'agent-' || (i % 7) AS agent,
           CASE WHEN i % 100 = 0 THEN 'failed' ELSE 'succeeded' END AS state
    FROM generate_series(1, $1::bigint) AS i,
         (SELECT (extract(epoch FROM now() - interval '30 days') * 1000)::bigint AS start,
                 (30 * 86400000::bigint / $1::bigint) AS step) AS span
"""
FILL = (
    f"""INSERT INTO attempts (task_id, attempt, state, worker, started_at, finished_at)
        SELECT id, attempt, 'failed', 'worker', at, at
        FROM ({_PAST}) AS past, generate_series(1, 3) AS attempt WHERE i % 100 = 0""",
    f"""INSERT INTO tasks (id, agent, state, progress, created_at, published_at, finished_at,
                           worker, digest, stream, entry_id, input)
        SELECT id, agent, state, 2147483647, at, at, at, 'worker', md5(i::text), 's', '1-1',
               jsonb_build_object('n', i, 'note', repeat('x', 250)) FROM ({_PAST}) AS past""",
    f"""INSERT INTO results (task_id, agent, state, attempt, output, worker, finished_at)
        SELECT id, agent, state, 1, jsonb_build_object('n', i, 'note', repeat('x', 150)),
               'worker', at FROM ({_PAST}) AS past""",
    f"""INSERT INTO audit_events (id, at, action, actor, object_type, object_id, after)
        SELECT md5(i || action)::uuid, at, action, 'worker', 'task', id::text, '{{}}'
        FROM ({_PAST}) AS past, (VALUES ('past.queued'), ('past.ended')) AS acts(action)""",
)


def cases(sizes: Sizes, *, peers: bool) -> list[Case]:
    """Each backlog, each payload, and a full record with its queries."""
    del peers
    found = [
        Case(f"W6 backlog {n:,}", _backlog(n, sizes.sustained), rounds=HEAVY if n > 50_000 else 9)
        for n in sizes.backlogs
    ]
    found += [Case(f"W6 payload {kb} KB", _payload(kb, n)) for kb, n in sizes.payloads]
    return [*found, Case(f"W6 {sizes.rows:,} rows there", _rows(sizes), rounds=HEAVY)]


def _backlog(tasks: int, sustained: int) -> Any:
    """A small backlog is drained again and again, so that each rate is one of seconds."""

    async def measure(ground: Ground) -> list[Sample]:
        seconds, goes = 0.0, max(1, min(6, math.ceil(sustained / tasks)))
        for _ in range(goes):
            await ground.clean()
            seconds += await _drain(ground, tasks)
        return [Sample("W6", f"backlog {tasks:,}", tasks * goes / seconds, "tasks/s", of=OF)]

    return measure


def _payload(kilobytes: int, tasks: int) -> Any:
    async def measure(ground: Ground) -> list[Sample]:
        await ground.clean()
        rate = tasks / await _drain(ground, tasks, size=kilobytes * 1024)
        return [
            Sample("W6", f"payload {kilobytes} KB", rate, "tasks/s", of=OF),
            Sample("W6", f"payload {kilobytes} KB, bytes", rate * kilobytes / 1024, "MB/s"),
        ]

    return measure


def _rows(sizes: Sizes) -> Any:
    async def measure(ground: Ground) -> list[Sample]:
        await ground.clean()
        for statement in FILL:
            ground.telling.say("filling the record")
            await ground.postgres.execute(statement, sizes.rows)
        await ground.postgres.execute("VACUUM ANALYZE")
        queries = await _queries(ground, sizes)
        seconds = await _drain(ground, sizes.drain, past=sizes.rows)
        what = f"{sizes.rows:,} rows there, backlog {sizes.drain:,}"
        return [Sample("W6", what, sizes.drain / seconds, "tasks/s", of=OF), *queries]

    return measure


async def _drain(ground: Ground, tasks: int, *, size: int = 300, past: int = 0) -> float:
    await backlog.publish(ground, tasks, size=size)

    async def start() -> None:
        await ground.role("recorder")
        await ground.role("worker")

    return (await drained(ground, tasks, start=start, past=past)).seconds


async def _queries(ground: Ground, sizes: Sizes) -> list[Sample]:
    """The lists and details that the API asks, timed by the server and by the caller."""
    database, repeats = ground.parts.database, sizes.queries
    middle = (await listing.tasks(database, limit=200)).next
    some = (await listing.tasks(database, limit=1)).rows[0]
    calls = {
        "newest": lambda: listing.tasks(database),
        "next page": lambda: listing.tasks(database, after=middle),
        "of an agent": lambda: listing.tasks(database, agent="agent-3"),
        "failed": lambda: listing.tasks(database, state="failed"),
        "succeeded": lambda: listing.tasks(database, state="succeeded"),
        "running": lambda: listing.tasks(database, state="running"),
        "of an hour": lambda: listing.tasks(database, until=some.created_at),
        "one task": lambda: listing.task(database, some.id),
        "audit of one": lambda: listing.audit(database, object_id=some.id),
        "audit, newest": lambda: listing.audit(database),
    }
    server, caller, scans = 0.0, 0.0, 0
    for call in calls.values():
        took, statements = [], []
        for _ in range(repeats):
            began = time.monotonic()
            statements = await _captured(ground, call)
            took.append((time.monotonic() - began) * 1e3)
        caller = max(caller, percentile(took, 0.95))
        for statement, parameters in statements:
            p95, scanned = await _explained(ground, statement, parameters, repeats)
            server, scans = max(server, p95), scans + scanned
    at = f"queries at {sizes.rows:,} rows"
    return [
        Sample("W6", f"{at}, slowest p95", server, "ms"),
        Sample("W6", f"{at}, slowest p95 for the caller", caller, "ms"),
        Sample("W6", f"{at}, sequential scans", scans, "queries"),
    ]


async def _captured(ground: Ground, call: Any) -> list[tuple[str, Any]]:
    """Make a call; the statements that it sent."""
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    engine = ground.parts.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        await call()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return sent


async def _explained(
    ground: Ground, statement: str, parameters: Any, repeats: int
) -> tuple[float, int]:
    """p95 of planning and running it, in ms by the server; 1 when it scans a table."""
    took, scanned = [], 0
    async with ground.parts.database.transaction() as connection:
        for _ in range(repeats):
            asked = await connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
            )
            (plan,) = asked.scalar_one()
            took.append(plan["Planning Time"] + plan["Execution Time"])
            scanned = int("Seq Scan" in str(plan))
    return percentile(took, 0.95), scanned
