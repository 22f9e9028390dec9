"""The smallest honest loops: what the machine allows, with no framework around it.

`python -m tests.benchmarks.raw worker` reads tasks, writes results and acknowledges; `... recorder`
writes the same rows as ours (tasks, results, two audit events a task) and acknowledges after the
commit. No owner check, no markers, no retries, no validation, one kind of message.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
from pydantic_core import from_json, to_json
from uuid_utils.compat import uuid7

from orchestrator.cli.opening import run_long
from orchestrator.db.bulk import joined
from orchestrator.db.recording import INSERT_AUDIT, INSERT_RESULTS, TASK_COLUMNS
from orchestrator.streams.names import ORCHESTRATOR, RECORDER, Keys
from orchestrator.task import TERMINAL_PROGRESS, iso
from tests.benchmarks.agents import NOTE
from tests.benchmarks.gate import at_gate
from tests.benchmarks.wire import Wire, pack

READ = 500  # tasks at a time: as many as a worker of this concurrency has slots
RECORD = 1000  # messages in one transaction
TASK_ROW = (
    "id", "agent", "state", "progress", "created_at", "digest", "published_at", "stream",
    "entry_id", "worker", "started_at", "finished_at", "queue", "priority", "tenant", "input",
)  # fmt: skip
RESULT_ROW = (
    "task_id", "agent", "state", "attempt", "output", "worker", "started_at", "finished_at",
)  # fmt: skip
AUDIT_ROW = (
    "id", "at", "action", "actor", "object_type", "object_id", "before", "after", "detail",
)  # fmt: skip


def insert(table: str, names: tuple[str, ...], types: dict[str, str], first: int = 1) -> str:
    """`INSERT ... SELECT unnest`, each column one text; parameters are counted from `first`."""
    quoted = ", ".join(f'"{name}"' for name in names)
    picks = ", ".join(f"c{i}::{types[name]}" for i, name in enumerate(names))
    arrays = ", ".join(
        f"string_to_array(${i + first}, chr(31), chr(30))" for i in range(len(names))
    )
    aliases = ", ".join(f"c{i}" for i in range(len(names)))
    return (
        f"INSERT INTO {table} ({quoted}) SELECT {picks} FROM unnest({arrays}) AS r({aliases})"
        " WHERE c0 IS NOT NULL ON CONFLICT DO NOTHING"
    )


AUDIT_TYPES, RESULT_TYPES = INSERT_AUDIT.columns, INSERT_RESULTS.columns
TASKS_SQL = insert("tasks", TASK_ROW, TASK_COLUMNS)
AUDIT_SQL = insert("audit_events", AUDIT_ROW, AUDIT_TYPES)
# All three tables in one statement: one round trip, one commit.
RECORD_SQL = (
    f"WITH t AS ({TASKS_SQL}),"
    f" r AS ({insert('results', RESULT_ROW, RESULT_TYPES, len(TASK_ROW) + 1)})"
    f" {insert('audit_events', AUDIT_ROW, AUDIT_TYPES, len(TASK_ROW) + len(RESULT_ROW) + 1)}"
)


async def worker(redis_url: str, keys: Keys) -> None:
    """Read, answer, acknowledge."""
    reader, writer = await Wire.connect(redis_url), await Wire.connect(redis_url)
    await at_gate()
    while True:
        reply = await reader.call(
            "XREADGROUP", "GROUP", ORCHESTRATOR, "raw", "COUNT", READ, "BLOCK", 1000,
            "STREAMS", keys.tasks, ">",
        )  # fmt: skip
        for _, entries in reply or ():
            packed = [_answer(keys.results, flat) for _, flat in entries]
            packed.append(
                pack(("XACK", keys.tasks, ORCHESTRATOR, *(entry_id for entry_id, _ in entries)))
            )
            await writer.send(packed)


def _answer(results: str, flat: list[bytes]) -> bytes:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    task, now = from_json(fields[b"data"]), iso(datetime.now(UTC))
    event = to_json(
        {
            "task_id": task["task_id"], "agent": task["agent"], "event": "succeeded", "at": now,
            "worker": "raw", "started_at": now, "finished_at": now,
            "output": {"n": 0, "began": time.monotonic(), "note": NOTE},
        }
    )  # fmt: skip
    return pack(
        ("XADD", results, "*", "id", fields[b"id"], "timestamp", now, "data", event,
         "producer", "raw")
    )  # fmt: skip


async def recorder(redis_url: str, database_url: str, keys: Keys) -> None:
    """Read both streams; write a task and its end as one row; acknowledge after the commit."""
    reader, writer = await Wire.connect(redis_url), await Wire.connect(redis_url)
    connection = await asyncpg.connect(database_url)
    await at_gate()
    seen: dict[bytes, tuple[bytes, list[bytes]]] = {}
    heard: dict[bytes, tuple[bytes, list[bytes]]] = {}
    writing: asyncio.Future[None] = asyncio.ensure_future(asyncio.sleep(0))
    while True:
        reply = await reader.call(
            "XREADGROUP", "GROUP", RECORDER, "raw", "COUNT", RECORD, "BLOCK", 1000,
            "STREAMS", keys.tasks, keys.results, ">", ">",
        )  # fmt: skip
        for stream, entries in reply or ():
            into = seen if stream.decode() == keys.tasks else heard
            into.update((flat[1], (entry_id, flat)) for entry_id, flat in entries)
        both = [each for each in heard if each in seen]
        if not both:
            continue
        pairs = [(seen.pop(each), heard.pop(each)) for each in both]
        tasks, results, audit = rows(keys, pairs)
        parameters = columns(tasks, TASK_ROW, TASK_COLUMNS)
        parameters += columns(results, RESULT_ROW, RESULT_TYPES)
        parameters += columns(audit, AUDIT_ROW, AUDIT_TYPES)
        # The next batch is read and prepared while Postgres writes this one.
        await writing
        writing = asyncio.ensure_future(_write(connection, parameters, writer, keys, pairs))


async def _write(
    connection: asyncpg.Connection, columns: list[str], wire: Wire, keys: Keys, pairs: list[Any]
) -> None:
    await connection.execute(RECORD_SQL, *columns)
    task_ids = [entry_id for (entry_id, _), _ in pairs]
    result_ids = [entry_id for _, (entry_id, _) in pairs]
    await wire.send(
        [
            pack(("XACK", keys.tasks, RECORDER, *task_ids)),
            pack(("XDEL", keys.tasks, *task_ids)),
            pack(("XACK", keys.results, RECORDER, *result_ids)),
        ]
    )


def rows(keys: Keys, pairs: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """The rows of tasks, results and audit that a recorder writes for these messages."""
    tasks, results, audit = [], [], []
    for (entry_id, task_fields), (_, result_fields) in pairs:
        task, event = from_json(task_fields[5]), from_json(result_fields[5])
        task_id, agent, born = task["task_id"], task["agent"], task_fields[3].decode()
        at, entry, worker = event["at"], entry_id.decode(), event["worker"]
        tasks.append((
            task_id, agent, "succeeded", TERMINAL_PROGRESS, born, task_id[:32], born, keys.tasks,
            entry, worker, event["started_at"], at, "default", "normal", "default", task["input"],
        ))  # fmt: skip
        results.append(
            (task_id, agent, "succeeded", 1, event["output"], worker, event["started_at"], at)
        )
        audit.append((
            str(uuid7()), born, "task.queued", "benchmark", "task", task_id, None,
            {"state": "queued", "attempt": 1}, {"agent": agent, "entry_id": entry},
        ))  # fmt: skip
        audit.append((
            str(uuid7()), at, "task.succeeded", worker, "task", task_id, {"state": "queued"},
            {"state": "succeeded", "attempt": 1}, {"agent": agent},
        ))  # fmt: skip
    return tasks, results, audit


def columns(found: Sequence[Any], names: tuple[str, ...], types: dict[str, str]) -> list[str]:
    """Each column of these rows as one text."""
    # A time is a text here already; our own column writer would ask it for its isoformat().
    kinds = ["text" if types[name] == "timestamptz" else types[name] for name in names]
    return [joined(c, kind) for c, kind in zip(zip(*found, strict=True), kinds, strict=True)]


if __name__ == "__main__":
    where = os.environ["AURORA_REDIS_URL"], Keys(os.environ["AURORA_PREFIX"])
    if sys.argv[1] == "worker":
        run_long(worker(*where))
    else:
        run_long(recorder(where[0], os.environ["AURORA_DATABASE_URL"], where[1]))
