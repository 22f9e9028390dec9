"""Many entries at once: in order, a few writes at a time, and no further than an error."""

import asyncio

import pytest

from orchestrator.errors import Overloaded
from orchestrator.streams.publisher import AT_ONCE, CHUNK, Publisher
from orchestrator.task import Task, new_id

MANY = 10 * CHUNK


@pytest.fixture
async def publisher(streams) -> Publisher:
    return Publisher(streams, producer="p")


def tasks() -> list[Task]:
    return [Task(task_id=new_id(), agent="shout", input={}) for _ in range(MANY)]


async def test_many_keep_their_order(streams, publisher):
    """Each entry's id is its own task's, and they stand in the order that was given."""
    given = tasks()

    entry_ids = await publisher.publish_many(given)

    found = await streams.commands.xrange(streams.keys.tasks)
    assert [(entry_id.decode(), fields[b"id"].decode()) for entry_id, fields in found] == [
        (entry_id, task.task_id) for entry_id, task in zip(entry_ids, given, strict=True)
    ]


async def test_many_are_written_a_few_at_a_time(streams, publisher, monkeypatch):
    """P8: whoever shares the connection waits for two writes, however many there are."""
    add, under_way, most = streams.add, 0, 0

    async def counted(entries):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return await add(entries)

    monkeypatch.setattr(streams, "add", counted)

    await publisher.publish_many(tasks())

    assert most == AT_ONCE


async def test_after_a_refusal_the_rest_is_not_written(streams, publisher, monkeypatch):
    """The caller hears of it; nothing begins after it, and nothing is left running."""
    add, calls = streams.add, 0

    async def full_at_the_second(entries):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Overloaded("out of memory", retry_after=10)
        return await add(entries)

    monkeypatch.setattr(streams, "add", full_at_the_second)

    with pytest.raises(Overloaded):
        await publisher.publish_many(tasks())

    assert calls <= 1 + AT_ONCE
    assert await streams.commands.xlen(streams.keys.tasks) <= AT_ONCE * CHUNK
