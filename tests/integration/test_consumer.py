"""The one consumer: claims, lost replies, lost groups, and no more than was asked for."""

import math
import os
from datetime import timedelta

import pytest

from orchestrator.errors import UnsuitableServer
from orchestrator.streams.consumer import Consumer
from orchestrator.streams.housekeeping import consumers_retired, trim
from orchestrator.streams.names import ALERTS, ORCHESTRATOR, RECORDER, TASKS, Keys
from orchestrator.streams.neighbours import Neighbours
from orchestrator.streams.publisher import Publisher
from orchestrator.task import Priority, Task, new_id
from tests.support import wait_until

LEASE = timedelta(milliseconds=40)


def member(streams, name: str, *, lease: timedelta = LEASE) -> Consumer:
    publisher = Publisher(streams, producer=name)
    return Consumer(streams, group=ORCHESTRATOR, name=name, lease=lease, publisher=publisher)


def a_task(**more) -> Task:
    return Task(task_id=new_id(), agent="noop", input={}, **more)


@pytest.fixture
async def publisher(streams) -> Publisher:
    return Publisher(streams, producer="p")


async def test_no_more_than_there_are_slots(streams, publisher):
    """Not even when all lanes have news at once."""
    reader = member(streams, "a")
    await reader.watch(dict.fromkeys(streams.keys.lanes("default"), TASKS))
    for priority in Priority:
        await publisher.publish_many([a_task(priority=priority) for _ in range(10)])
    lanes = [(key, 2) for key in reader.watched]

    for _ in range(5):
        got = await reader.take(2, lanes)
        assert len(got) <= 2


async def test_claims_behind_a_window_of_renewed_entries(streams, publisher):
    """Trap: from 0-0 each time, XAUTOCLAIM would never see past ten times its count."""
    dead = member(streams, "dead")
    await dead.watch({streams.keys.tasks: TASKS})
    await publisher.publish_many([a_task() for _ in range(1300)])
    taken = [each for _ in range(2) for each in await dead.read(1000)]
    assert len(taken) == 1300
    claimer = member(streams, "claimer", lease=timedelta(milliseconds=400))
    await claimer.watch({streams.keys.tasks: TASKS})
    fresh = [each.entry_id for each in taken[:1200]]

    async def claimed():
        # The first 1,200 are renewed again and again; the last hundred are orphans.
        await streams.commands.xclaim(
            streams.keys.tasks, ORCHESTRATOR, "dead", 0, fresh, justid=True
        )
        claimer._next_claim = 0.0
        return await claimer._claim(10, ())

    found = await wait_until(claimed, what="orphans behind the window are claimed")
    assert {each.entry_id for each in found} <= {each.entry_id for each in taken[1200:]}
    assert {each.times for each in found} == {2}


async def test_an_entry_whose_delivery_was_lost_is_found_without_raising_its_counter(
    streams, publisher
):
    """Trap: XREADGROUP ... 0 raises the counters of runs in flight, and fences them off."""
    reader = member(streams, "a", lease=timedelta(hours=1))
    await reader.watch({streams.keys.tasks: TASKS})
    await publisher.publish_many([a_task(), a_task()])
    in_hand, lost = await reader.read(10)

    reader.suspect_lost_reply()
    found = await reader.read(10, known=[in_hand.entry_id])

    assert [(each.entry_id, each.times) for each in found] == [(lost.entry_id, 1)]
    pending = await streams.commands.xpending_range(streams.keys.tasks, ORCHESTRATOR, "-", "+", 9)
    assert [each["times_delivered"] for each in pending] == [1, 1]


async def test_groups_that_redis_lost_are_made_again_from_the_beginning(streams, publisher):
    """NOGROUP: nothing that came in between is skipped, and the audit says what happened."""
    reader = member(streams, "a")
    await reader.watch({streams.keys.tasks: TASKS})
    await streams.commands.delete(streams.keys.tasks)
    await publisher.publish(a_task())

    got = await wait_until(lambda: reader.read(10), what="read after the loss")

    assert len(got) == 1
    groups = await streams.commands.xinfo_groups(streams.keys.tasks)
    assert {each["name"] for each in groups} == {ORCHESTRATOR.encode(), RECORDER.encode()}
    (entry,) = await streams.commands.xrange(streams.keys.audit)
    assert b"transport.reset" in entry[1][b"data"]


async def test_the_janitor_trims_only_what_all_have_acknowledged(streams, publisher):
    """P3 and P8: a group of somebody else holds entries back, and is passed over only if asked."""
    key = streams.keys.of(ALERTS)
    await streams.ensure_groups({key: ALERTS})
    await streams.commands.xgroup_create(key, "theirs", id="0")
    for _ in range(5):
        await publisher.publish_data(ALERTS, b'{"x":1}')
    ids = [i for i, _ in await streams.commands.xrange(key)]
    later = float("9e9")

    assert (await trim(streams, key, ALERTS, before=later, pass_over=False))[0] == 0
    await streams.commands.xreadgroup(ALERTS.groups[0], "c", {key: ">"})
    await streams.commands.xack(key, ALERTS.groups[0], *ids[:3])
    assert (await trim(streams, key, ALERTS, before=later, pass_over=False)) == (0, True)
    assert (await trim(streams, key, ALERTS, before=later, pass_over=True))[0] == 3
    await streams.commands.xack(key, ALERTS.groups[0], *ids[3:])
    await streams.commands.xreadgroup("theirs", "c", {key: ">"})
    await streams.commands.xack(key, "theirs", *ids)
    assert (await trim(streams, key, ALERTS, before=later, pass_over=False))[0] == 2


async def test_a_consumer_with_pending_entries_is_never_deleted(streams, publisher):
    """Trap: XGROUP DELCONSUMER takes its entries along."""
    reader = member(streams, "busy")
    await reader.watch({streams.keys.tasks: TASKS})
    await publisher.publish(a_task())
    await reader.read(1)
    await streams.commands.xgroup_createconsumer(streams.keys.tasks, ORCHESTRATOR, "idle")

    async def retired():
        return await consumers_retired(
            streams, streams.keys.tasks, ORCHESTRATOR, silent=timedelta(0)
        )

    assert await wait_until(retired, what="the idle one goes") == ["idle"]
    pending = await streams.commands.xpending(streams.keys.tasks, ORCHESTRATOR)
    assert pending["pending"] == 1


async def test_a_server_that_evicts_is_refused(streams):
    """The error says the line to type."""
    await streams.commands.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnsuitableServer, match="CONFIG SET maxmemory-policy noeviction"):
            await streams.check_server()
    finally:
        await streams.commands.config_set("maxmemory-policy", "noeviction")
    assert await streams.check_server()


def test_keys_carry_the_prefix():
    """Every key of ours starts with it, so that two systems can share a server."""
    keys = Keys("{soc}")
    assert keys.marker("x").startswith("{soc}:")


async def test_what_a_neighbour_had_that_ended_is_taken_over_before_its_lease(streams, tmp_path):
    """P5: and nothing of one that lives, however long it has been silent; each as another start."""
    publisher = Publisher(streams, producer="p")
    owners = {}
    for name in ("worker:me", "worker:ended", "worker:lives"):
        place = Neighbours(tmp_path, scope="s", name=name)
        place.enter()
        owner = Consumer(
            streams, group=ORCHESTRATOR, name=name, lease=timedelta(hours=1), publisher=publisher,
            neighbours=place,
        )  # fmt: skip
        await owner.watch({streams.keys.tasks: TASKS})
        owners[name] = owner
    me, ended, lives = owners.values()
    ids = []
    for owner in (ended, lives):
        await publisher.publish_many([a_task() for _ in range(4)])
        ids.append([each.entry_id for each in await owner.read(4)])
    assert await me.read(10, block=0.01) == []
    me._next_claim = math.inf
    await streams.commands.xdel(streams.keys.tasks, ids[0][0])  # a foreign trim

    os.close(ended.neighbours._lock)  # as the kernel does at its end
    ended.neighbours.memory.close()
    taken = []
    for _ in range(3):
        me._next_look = 0.0
        taken.append([(each.entry_id, each.times) for each in await me.read(10, block=0.01)])

    # Between the two that live: half of four, of which one was trimmed, of two, and of one.
    assert taken == [[(entry_id, 2)] for entry_id in ids[0][1:]]
    left = await streams.commands.xpending_range(streams.keys.tasks, ORCHESTRATOR, "-", "+", 10)
    owned = {each["message_id"].decode(): each["consumer"].decode() for each in left}
    assert owned == dict.fromkeys(ids[0][1:], me.name) | dict.fromkeys(ids[1], lives.name)
    for owner in (me, lives):
        owner.neighbours.leave()
