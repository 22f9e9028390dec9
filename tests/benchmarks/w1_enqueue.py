"""W1: enqueue; one awaited call after the other, a hundred callers, in bulk, and through HTTP."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import asyncpg

from orchestrator.client import set_submitter
from orchestrator.db import keys
from orchestrator.streams.message import encode
from orchestrator.task import Durability, new_id
from tests.benchmarks import backlog, raw
from tests.benchmarks.agents import Noop, job
from tests.benchmarks.case import Case, Sizes
from tests.benchmarks.figures import Sample
from tests.benchmarks.ground import Ground
from tests.benchmarks.http import Http
from tests.benchmarks.peers import running
from tests.benchmarks.wire import Wire

CALLERS = 100
CHUNK = 1000  # tasks in one `map`, one transaction, one request
LIMITS = {
    ("one by one", Durability.STREAM): "W1 raw XADD one by one, redis-py",
    ("one by one", Durability.DATABASE): "W1 raw one-row commit, asyncpg",
    ("100 callers", Durability.STREAM): "W1 raw XADD pipelined, packed",
    ("100 callers", Durability.DATABASE): "W1 raw rows of 1,000 tasks and their audit, asyncpg",
    ("bulk", Durability.STREAM): "W1 raw XADD pipelined, packed",
    ("bulk", Durability.DATABASE): "W1 raw rows of 1,000 tasks and their audit, asyncpg",
}
Delay = Callable[[], Awaitable[object]]


def cases(sizes: Sizes, *, peers: bool) -> list[Case]:
    """The limits, both durabilities, the API, the peers."""

    async def limits(ground: Ground) -> list[Sample]:
        await ground.clean()
        return [*await _raw_redis(ground, sizes), *await _raw_postgres(ground, sizes)]

    async def stream(ground: Ground) -> list[Sample]:
        return await _delay(ground, sizes, Durability.STREAM)

    async def database(ground: Ground) -> list[Sample]:
        return await _delay(ground, sizes, Durability.DATABASE)

    async def api(ground: Ground) -> list[Sample]:
        return await _api(ground, sizes)

    found = [
        Case("W1 enqueue, raw", limits),
        Case("W1 enqueue, stream", stream),
        Case("W1 enqueue, database", database),
        Case("W1 enqueue, HTTP API", api),
    ]
    return found + (running.enqueue_cases(sizes) if peers else [])


async def rate(count: int, work: Awaitable[object]) -> float:
    """How many a second."""
    began = time.monotonic()
    await work
    return count / (time.monotonic() - began)


async def _one_by_one(count: int, call: Delay) -> None:
    for _ in range(count):
        await call()


async def _callers(count: int, call: Delay) -> None:
    await asyncio.gather(*(_one_by_one(count // CALLERS, call) for _ in range(CALLERS)))


async def _delay(ground: Ground, sizes: Sizes, durability: Durability) -> list[Sample]:
    await ground.clean()
    set_submitter(ground.parts.submitter)
    said, many = job(), [job() for _ in range(CHUNK)]

    async def call() -> None:
        await Noop.apply_async(said, durability=durability)

    async def bulk() -> None:
        for _ in range(0, sizes.bulk, CHUNK):
            await Noop.map(many, durability=durability)

    await _one_by_one(50, call)  # connections are made, statements prepared
    callers = sizes.one_by_one * 3 // CALLERS * CALLERS
    found = {
        "one by one": await rate(sizes.one_by_one, _one_by_one(sizes.one_by_one, call)),
        "100 callers": await rate(callers, _callers(callers, call)),
        "bulk": await rate(sizes.bulk, bulk()),
    }
    return [
        Sample("W1", f"{how}, {durability}", value, "tasks/s", of=LIMITS[how, durability])
        for how, value in found.items()
    ]


async def _raw_redis(ground: Ground, sizes: Sizes) -> list[Sample]:
    """A bare awaited XADD by redis-py and by packed commands; both pipelined."""
    commands, key = ground.parts.streams.commands, ground.parts.streams.keys.tasks
    task = Noop.task(job())
    fields = encode(task, message_id=task.task_id, at=datetime.now(UTC), producer="benchmark")
    wire = await Wire.connect(ground.redis_url)
    (packed,) = next(backlog.chunks(backlog.entries(ground, 1)))

    async def pipelined() -> None:
        for _ in range(0, sizes.bulk, backlog.CHUNK):
            pipe = commands.pipeline(transaction=False)
            for _ in range(backlog.CHUNK):
                pipe.xadd(key, fields)
            await pipe.execute()

    async def sent() -> None:
        for chunk in backlog.chunks(backlog.entries(ground, sizes.bulk)):
            await wire.send(chunk)

    n = sizes.one_by_one
    found = {
        "XADD one by one, redis-py": await rate(
            n, _one_by_one(n, lambda: commands.xadd(key, fields))
        ),
        "XADD one by one, packed": await rate(n, _one_by_one(n, lambda: wire.send([packed]))),
        "XADD pipelined, redis-py": await rate(sizes.bulk, pipelined()),
        "XADD pipelined, packed": await rate(sizes.bulk, sent()),
    }
    wire.close()
    return [Sample("W1", f"raw {what}", value, "entries/s") for what, value in found.items()]


async def _raw_postgres(ground: Ground, sizes: Sizes) -> list[Sample]:
    """A commit of one row, and with its audit row; of a thousand tasks with an audit row each."""
    connection = await asyncpg.connect(ground.database_url)
    kinds = raw.TASK_COLUMNS
    task_sql = raw.insert("tasks", raw.TASK_ROW, kinds)
    audit_sql = raw.insert("audit_events", raw.AUDIT_ROW, raw.AUDIT_TYPES, len(raw.TASK_ROW) + 1)
    both_sql = f"WITH t AS ({task_sql}) {audit_sql}"

    async def one() -> None:
        await connection.execute(task_sql, *raw.columns([_row(0)[0]], raw.TASK_ROW, kinds))

    async def both() -> None:
        task, audit = _row(0)
        await connection.execute(
            both_sql,
            *raw.columns([task], raw.TASK_ROW, kinds),
            *raw.columns([audit], raw.AUDIT_ROW, raw.AUDIT_TYPES),
        )

    async def bulk() -> None:
        for _ in range(0, sizes.bulk, CHUNK):
            tasks, audit = zip(*map(_row, range(CHUNK)), strict=True)
            async with connection.transaction():
                await connection.execute(task_sql, *raw.columns(tasks, raw.TASK_ROW, kinds))
                await connection.execute(
                    raw.AUDIT_SQL, *raw.columns(audit, raw.AUDIT_ROW, raw.AUDIT_TYPES)
                )

    commits = sizes.one_by_one // 2
    await one()
    single = await rate(commits, _one_by_one(commits, one))
    await both()
    audited = await rate(commits, _one_by_one(commits, both))
    many = await rate(sizes.bulk, bulk())
    await connection.close()
    return [
        Sample("W1", "raw one-row commit, asyncpg", single, "commits/s"),
        Sample("W1", "raw commit of a task and its audit, asyncpg", audited, "commits/s"),
        Sample("W1", "raw rows of 1,000 tasks and their audit, asyncpg", many, "tasks/s"),
    ]


def _row(_: int) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """A row of `tasks` as it is when it has been accepted, and its audit row."""
    task_id, now = new_id(), datetime.now(UTC).isoformat()
    said = job().model_dump()
    return (
        (task_id, "noop", "queued", 11, now, task_id[:32], None, None, None, None, None, None,
         "default", "normal", "default", said),
        (new_id(), now, "task.queued", "benchmark", "task", task_id, None,
         {"state": "queued", "attempt": 1}, {"agent": "noop"}),
    )  # fmt: skip


async def _api(ground: Ground, sizes: Sizes) -> list[Sample]:
    """One keep-alive connection: single requests, and a thousand tasks a request."""
    await ground.clean()
    _, key = await keys.create_key(ground.parts.database, "benchmark", ["admin"])
    port = ground.free_port()
    await ground.role("api", AURORA_PORT=str(port))
    await ground.open_gate()
    http = await Http.connect(port, key)
    found = []
    for durability in Durability:
        one = {"agent": "noop", "input": job().model_dump(), "durability": durability}
        many = [one] * CHUNK
        await http.post("/api/v1/tasks", one)
        for what, count, body, path in (
            ("single", sizes.one_by_one // 2, one, "/api/v1/tasks"),
            ("bulk", sizes.bulk // 2 // CHUNK, many, "/api/v1/tasks/bulk"),
        ):
            requests = await rate(count, _one_by_one(count, lambda p=path, b=body: http.post(p, b)))
            tasks = requests * (len(body) if isinstance(body, list) else 1)
            found.append(Sample("W1", f"HTTP {what}, {durability}", tasks, "tasks/s"))
    http.close()
    return found
