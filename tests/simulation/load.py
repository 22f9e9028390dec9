"""What is asked for in a simulation: by a client of ours, and by somebody with a bare XADD."""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.cron import CatchUp, Overlap, crontab
from orchestrator.db.ticks import Schedule
from orchestrator.errors import Overloaded, TaskIdConflict, TaskNotFound, Unavailable
from orchestrator.runtime.submitter import TaskSubmitter
from orchestrator.streams.names import Keys
from orchestrator.task import Priority, Task, new_id
from tests.simulation.agents import REGISTRY
from tests.simulation.cast import parts_of
from tests.simulation.virtual import Process
from tests.simulation.world import World

FAILURES = 4  # attempts that the agents have


async def submit(world: World, total: int, seconds: float, rng: random.Random) -> None:
    """Ask for tasks for a while; the ledger knows what was accepted."""
    process = Process("client")
    submitter = parts_of(process.name, world.settings, world.postgres).submitter

    async def ask() -> None:
        for n in range(total):
            await asyncio.sleep(rng.uniform(0, 2 * seconds / total))
            task = _task(n, rng, world.loop.wall())
            world.ledger.asked[task.task_id] = task
            if await _submitted(world, submitter, task):
                world.ledger.accepted[task.task_id] = world.loop.time()
            await _beside(world, submitter, rng)

    await process.run(ask())


async def _submitted(world: World, submitter: TaskSubmitter, task: Task) -> bool:
    try:
        await submitter.submit(task)
    except (Unavailable, Overloaded) as error:
        world.say(f"task {world.number(task.task_id)} refused: {error}")
        return False
    return True


async def _beside(world: World, submitter: TaskSubmitter, rng: random.Random) -> None:
    """Now and then: a cancel, the same again, another under the same id, somebody else's."""
    task = rng.choice(list(world.ledger.asked.values()))
    what = rng.random()
    if what < 0.05:
        world.ledger.cancelled.add(task.task_id)
        world.say(f"cancel of task {world.number(task.task_id)}")
        try:
            await submitter.cancel(task.task_id, actor="somebody")
        except (Unavailable, Overloaded, TaskNotFound) as error:
            world.say(f"not cancelled: {error!r}")
    elif what < 0.10:
        await _submitted(world, submitter, task)
    elif what < 0.13:
        other = task.model_copy(update={"input": {"n": -1}})
        try:
            if await _submitted(world, submitter, other):
                world.ledger.asked[task.task_id] = other  # it came first
        except TaskIdConflict:
            pass
    elif what < 0.20 and world.redis.up:
        data = {"agent": "plain", "input": {"n": rng.randint(100, 200)}}
        key = Keys(world.settings.prefix).tasks
        fields = (b"id", new_id().encode(), b"data", json.dumps(data).encode())
        world.redis.command(b"XADD", key.encode(), b"*", *fields)


def _task(n: int, rng: random.Random, now: float) -> Task:
    kind = rng.choices(["plain", "telling", "poison"], [10, 2, 1])[0]
    given: dict[str, Any] = {"n": n}
    if kind != "poison":
        given["failures"] = rng.choices([0, 1, FAILURES], [8, 2, 1])[0]
        long = () if given["failures"] else (1.5, 4.0)
        given["seconds"] = rng.choice((0.0, 0.0, 0.05, 0.5, *long))
    at = datetime.fromtimestamp(now, UTC)
    options: dict[str, Any] = {"priority": rng.choice(list(Priority))}
    if rng.random() < 0.1:
        options["run_at"] = at + timedelta(seconds=rng.uniform(0.1, 4))
    if rng.random() < 0.1:
        options["expires_at"] = at + timedelta(seconds=rng.uniform(1, 8))
    if rng.random() < 0.2:
        options["queue"] = "other"
    return REGISTRY.get(kind).task(given, **options)


def add_schedules(world: World, rng: random.Random) -> None:
    """One of each kind of overlap."""
    now = world.postgres.now()
    for number, overlap in enumerate(Overlap):
        line = crontab(
            f"*/{rng.choice([1, 2])} * * * * *",
            input={"n": 1000 + number, "seconds": rng.choice([0.0, 0.4, 1.5])},
            catchup=rng.choice(list(CatchUp)), catchup_window=timedelta(seconds=8),
            overlap=overlap,
        )  # fmt: skip
        schedule_id = new_id()
        world.postgres.rows.schedules[schedule_id] = Schedule(
            id=schedule_id, name=overlap.value, agent="plain", expression=line.expression,
            timezone=line.timezone, input=line.input, catchup=line.catchup,
            catchup_window=line.catchup_window, overlap=overlap, origin="api", revision=1,
            decided_until=now, next_tick_at=line.next_tick(now), last_task_id=None,
            paused_at=None, created_at=now, updated_at=now,
        )  # fmt: skip
