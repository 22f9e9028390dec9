"""The group commit's own rules, with a commit that answers when the test says so."""

import asyncio

import pytest

from orchestrator.runtime import group_commit
from orchestrator.runtime.group_commit import GroupCommit
from orchestrator.task import Task, new_id


def task() -> Task:
    return Task(task_id=new_id(), agent="shout", input={})


async def test_a_group_has_a_limit(monkeypatch):
    """Whoever is beyond it is in the next one."""
    monkeypatch.setattr(group_commit, "GROUP", 3)
    sizes = []

    async def commit(asked):
        sizes.append(len(asked))
        return {each.task_id for each, _ in asked}

    async def publish(tasks):
        return {each.task_id: "1-1" for each in tasks}

    group = GroupCommit(commit=commit, publish=publish)
    entries = await asyncio.gather(*(group.accept(task(), actor="me") for _ in range(7)))

    assert sizes == [3, 3, 1]
    assert all(entries)


async def test_the_next_group_does_not_wait_for_redis():
    """It is committed while the one before it is being published."""
    published = asyncio.Event()

    async def commit(asked):
        return {each.task_id for each, _ in asked}

    async def publish(tasks):
        if first.task_id in {each.task_id for each in tasks}:
            await published.wait()
        return {}

    first = task()
    group = GroupCommit(commit=commit, publish=publish)
    slow = asyncio.create_task(group.accept(first, actor="me"))
    await asyncio.sleep(0)

    await asyncio.wait_for(group.accept(task(), actor="me"), 1)

    assert not slow.done()
    published.set()
    assert await slow == {}


async def test_a_surprise_in_publishing_reaches_every_caller():
    """Nobody is left waiting, and nobody is told that he was cancelled."""

    async def commit(asked):
        return {each.task_id for each, _ in asked}

    async def publish(tasks):
        raise RuntimeError("a fault of ours")

    group = GroupCommit(commit=commit, publish=publish)
    answers = await asyncio.gather(
        *(group.accept(task(), actor="me") for _ in range(3)), return_exceptions=True
    )

    assert [type(each) for each in answers] == [RuntimeError] * 3


async def test_at_the_end_of_the_loop_nobody_is_left_waiting():
    """The group's task is cancelled with all others; so are those who wait for it."""

    async def commit(asked):
        await asyncio.Event().wait()

    async def publish(tasks):
        raise AssertionError("nothing was committed")

    group = GroupCommit(commit=commit, publish=publish)
    caller = asyncio.create_task(group.accept(task(), actor="me"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    (running,) = group._groups
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(caller, 1)
