"""P7: each due tick of a schedule fires exactly once, however many schedulers run and die."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from orchestrator import Agent, RunContext
from orchestrator.cron import crontab
from orchestrator.db import ticks
from orchestrator.db.schedules import ScheduleStore
from orchestrator.db.session import Database
from orchestrator.db.ticks import Schedule
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.services import scheduler
from orchestrator.services.scheduler import Scheduler
from orchestrator.settings import Settings, load_settings
from tests.support import wait_until

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parent.parent.parent
SECONDS = 60 if os.environ.get("AURORA_TEST_LONG") == "1" else 20
ENTRY = (
    "import asyncio; from tests.acceptance.test_schedulers import schedule_for_ever;"
    " asyncio.run(schedule_for_ever())"
)


class Chime(Agent[dict[str, Any], str]):
    """Never run here."""

    async def run(self, task_input: dict[str, Any], ctx: RunContext) -> str:
        raise NotImplementedError(task_input, ctx)


async def schedule_for_ever() -> None:
    """The process under test; variables of the tests' own take its guard or strike it down."""
    if os.environ.get("AURORA_TEST_NO_LOCK"):
        ticks.ROW_LOCK = ""
    if blow := os.environ.get("AURORA_TEST_BLOW"):
        _strike_at_third_tick(signal.Signals[blow])
    registry = AgentRegistry([Chime])
    parts = Parts(load_settings(dict(os.environ)), role="scheduler", registry=registry)
    store = ScheduleStore(parts.database)
    await Scheduler(store, parts.submitter, registry, name=parts.name).run()


def _strike_at_third_tick(blow: signal.Signals) -> None:
    """In the middle of the transaction: the tick is inserted, its task is not."""
    scheduler.AFTER_TICK = 0.0  # awake a little before the others, so that it has ticks to decide
    accept, accepted = ticks.accept, Counter[str]()

    async def accept_or_fall(*args: Any, **options: Any) -> Any:
        accepted["ticks"] += 1
        if accepted["ticks"] == 3:
            os.kill(os.getpid(), blow)
        return await accept(*args, **options)

    ticks.accept = accept_or_fall


@contextmanager
def schedulers(settings: Settings, *variables: dict[str, str]) -> Iterator[list[Any]]:
    """A process for each, killed in the end."""
    environment = {
        **os.environ,
        "AURORA_REDIS_URL": settings.redis_url.get_secret_value(),
        "AURORA_DATABASE_URL": settings.database_url.get_secret_value(),
        "AURORA_PREFIX": settings.prefix,
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", ENTRY], cwd=ROOT, env={**environment, **each})
        for each in variables
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def ticks_of(database: Database) -> list[Any]:
    async with database.transaction() as connection:
        return list(
            await connection.execute(
                text(
                    "SELECT k.fire_at, k.outcome, k.task_id, k.decided_by, k.decided_at,"
                    " (SELECT count(*) FROM tasks t WHERE t.id = k.task_id) AS tasks"
                    " FROM schedule_ticks k ORDER BY k.fire_at"
                )
            )
        )


async def check(database: Database, schedule: Schedule) -> None:
    """The promise: exactly the expected ticks, each once, each fired, each with one task."""
    found = await ticks_of(database)
    expected = schedule.crontab.ticks_between(schedule.decided_until, found[-1].fire_at)
    assert [tick.fire_at for tick in found] == list(expected)
    assert {(tick.outcome, tick.tasks) for tick in found} == {("fired", 1)}
    assert len({tick.task_id for tick in found}) == len(found)
    async with database.transaction() as connection:
        [(tasks,)] = await connection.execute(text("SELECT count(*) FROM tasks"))
        [(said,)] = await connection.execute(
            text("SELECT count(*) FROM audit_events WHERE action = 'schedule.fired'")
        )
    assert tasks == said == len(found)


async def every_second(database: Database) -> Schedule:
    line = crontab("* * * * * *", overlap="allow", catchup="all")
    return await ScheduleStore(database).create("chime", line, actor="test")


async def test_three_schedulers_one_killed_at_a_tick(settings: Settings, database: Database):
    """Every second for a minute: each tick once, the one included at which a scheduler died."""
    schedule = await every_second(database)
    until = schedule.decided_until + timedelta(seconds=SECONDS)

    with schedulers(settings, {}, {}, {"AURORA_TEST_BLOW": "SIGKILL"}) as (_, _, victim):
        await wait_until(lambda: victim.poll() is not None, what="killed at a tick", timeout=60)
        await wait_until(
            lambda: _reached(database, until), what="the last tick", timeout=SECONDS + 30
        )

    assert victim.returncode == -signal.SIGKILL
    await check(database, schedule)
    found = await ticks_of(database)
    assert len(found) >= SECONDS
    assert len({tick.decided_by for tick in found}) >= 2
    late = sorted((tick.decided_at - tick.fire_at).total_seconds() for tick in found[5:])
    print(
        f"{len(found)} ticks by {dict(Counter(tick.decided_by for tick in found))}; late,"
        f" median {late[len(late) // 2] * 1000:.0f} ms, most {late[-1] * 1000:.0f} ms"
    )


async def test_without_its_key_the_promise_does_not_hold(settings: Settings, database: Database):
    """Teeth: with the key and the lock taken away, the same check goes red."""
    async with database.transaction() as connection:
        await connection.execute(
            text("ALTER TABLE schedule_ticks DROP CONSTRAINT schedule_ticks_pkey")
        )
    schedule = await every_second(database)
    unguarded = {"AURORA_TEST_NO_LOCK": "1"}

    with schedulers(settings, unguarded, unguarded, unguarded):
        await wait_until(lambda: _doubled(database), what="a tick that fired twice", timeout=60)

    with pytest.raises(AssertionError):
        await check(database, schedule)


async def test_with_the_key_alone_it_holds(settings: Settings, database: Database):
    """The counterpart: without the lock, but with the key, the check is green."""
    schedule = await every_second(database)
    until = schedule.decided_until + timedelta(seconds=10)
    unlocked = {"AURORA_TEST_NO_LOCK": "1"}

    with schedulers(settings, unlocked, unlocked, unlocked):
        await wait_until(lambda: _reached(database, until), what="ten ticks", timeout=60)

    await check(database, schedule)


async def test_a_stopped_scheduler_holds_nobody_up(settings: Settings, database: Database):
    """SIGSTOP in its transaction: after 5 s Postgres frees the tick. Woken up, it does no harm."""
    schedule = await every_second(database)

    with schedulers(settings, {}, {"AURORA_TEST_BLOW": "SIGSTOP"}) as (_, sleeper):
        asleep = psutil.Process(sleeper.pid)
        await wait_until(
            lambda: asleep.status() == psutil.STATUS_STOPPED, what="stopped at a tick", timeout=60
        )
        stopped = (await ticks_of(database))[-1].fire_at
        await wait_until(
            lambda: _reached(database, stopped + timedelta(seconds=8)),
            what="the other goes on", timeout=30,
        )  # fmt: skip
        sleeper.send_signal(signal.SIGCONT)
        await wait_until(
            lambda: _reached(database, stopped + timedelta(seconds=12)),
            what="both go on", timeout=30,
        )  # fmt: skip
        assert sleeper.poll() is None

    await check(database, schedule)
    late = max(tick.decided_at - tick.fire_at for tick in await ticks_of(database))
    assert late < timedelta(milliseconds=ticks.STALLED_MS) + timedelta(seconds=3)


async def _reached(database: Database, moment: Any) -> bool:
    found = await ticks_of(database)
    return bool(found) and found[-1].fire_at >= moment


async def _doubled(database: Database) -> bool:
    counted = Counter(tick.fire_at for tick in await ticks_of(database))
    return any(number > 1 for number in counted.values())
