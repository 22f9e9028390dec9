"""A task's whole way on real servers: published, run, ended, recorded."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import BaseModel
from sqlalchemy import text

from orchestrator import Agent, RunContext, TaskState
from orchestrator.app import recorder, worker
from orchestrator.client import set_submitter
from orchestrator.db.session import Database
from orchestrator.errors import TaskUnsuccessful
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.model_access import ModelDesk
from orchestrator.runtime.service import run_services
from orchestrator.settings import Settings
from tests.support import wait_until


class Text(BaseModel):
    text: str


class Shout(Agent[Text, Text]):
    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        return Text(text=task_input.text.upper())


class Patient(Agent[Text, Text]):
    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        await asyncio.sleep(0)  # from here on it has a limit
        return task_input


@asynccontextmanager
async def running(
    settings: Settings, *agents: type, roles=(worker, recorder), registry=None
) -> AsyncIterator[Parts]:
    parts = Parts(settings, role="test", registry=registry or AgentRegistry(agents))
    await parts.streams.ensure_all_groups()
    groups = [await role(parts) for role in roles]
    stopped = asyncio.Event()
    work = asyncio.create_task(run_services(groups, stopped=stopped))
    try:
        yield parts
    finally:
        stopped.set()
        await work
        await parts.close()


async def rows(database: Database, sql: str, **params):
    async with database.transaction() as connection:
        return [dict(row._mapping) for row in await connection.execute(text(sql), params)]


@pytest.mark.parametrize("durability", ["database", "stream"])
async def test_a_submitted_task_is_run_and_recorded(settings, database, streams, durability):
    """delay -> result in the caller's hand -> rows in tasks and results, and the audit of both."""
    async with running(settings, Shout) as parts:
        set_submitter(parts.submitter)
        handle = await Shout.apply_async(Text(text="hello"), durability=durability)
        assert (await handle.get(timeout=10)).text == "HELLO"
        assert (await handle.get(timeout=10, recorded=True)).text == "HELLO"
        assert await handle.state() is TaskState.SUCCEEDED
        (task,) = await rows(database, "SELECT * FROM tasks")
        assert task["state"] == "succeeded"
        assert task["input"] == {"text": "hello"}
        actions = await wait_until(
            lambda: rows(database, "SELECT action FROM audit_events ORDER BY at"), what="audit"
        )
        assert [each["action"] for each in actions] == ["task.queued", "task.succeeded"]
        await wait_until(lambda: _empty(parts), what="tasks stream empty")


async def test_a_fault_of_ours_fails_its_task_and_keeps_neither_slot_nor_lease(
    settings, streams, monkeypatch
):
    """A worker of one slot goes on; whoever waits for the task hears whose fault it was."""

    def surprised(*_):
        raise ZeroDivisionError("in the worker's own code")

    async with running(settings.model_copy(update={"concurrency": 1}), Shout) as parts:
        set_submitter(parts.submitter)
        with monkeypatch.context() as patched:
            patched.setattr(ModelDesk, "of", surprised)
            with pytest.raises(
                TaskUnsuccessful, match="a fault in the worker: in the worker's own code"
            ):
                await (await Shout.delay(Text(text="x"))).get(timeout=10)
        assert (await (await Shout.delay(Text(text="y"))).get(timeout=10)).text == "Y"


class Raises(Shout):
    name = "raises"

    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        # A runner lets this one through: it closes coroutines.
        raise GeneratorExit("not even an Exception")


async def test_whatever_an_agent_raises_keeps_neither_slot_nor_lease(settings, streams):
    """Also what is no Exception: otherwise a worker of one slot would renew that lease for ever."""
    async with running(
        settings.model_copy(update={"concurrency": 1}), Shout, Raises, roles=(worker,)
    ) as parts:
        set_submitter(parts.submitter)
        with pytest.raises(TaskUnsuccessful, match="a fault in the worker: not even an Exception"):
            await (await Raises.delay(Text(text="x"))).get(timeout=10)
        assert (await (await Shout.delay(Text(text="y"))).get(timeout=10)).text == "Y"


class Alone(Shout):
    isolation = "process"


@pytest.mark.parametrize(("agent", "count"), [(Shout, 50), (Patient, 50), (Alone, 2)])
async def test_an_attempt_leaves_nothing_to_the_collector(settings, streams, agent, count):
    """Thousands a second, that wait for it, are megabytes; and looking for them is work."""
    async with running(settings, agent, roles=(worker,)) as parts:

        async def drained(tasks: int) -> None:
            await parts.publisher.publish_many(
                [agent.task(Text(text=f"{number}")) for number in range(tasks)]
            )
            nonlocal ended
            ended += tasks
            await wait_until(lambda: _ends(parts, ended), what="all have ended")

        ended = 0
        await drained(1)
        gc.collect()
        others = _contexts()  # kept by other tests
        gc.disable()
        try:
            await drained(count)
            # asyncio's own loop drops cancelled timers by the hundred; a worker's uvloop at once.
            for _ in range(200):
                asyncio.get_running_loop().call_later(60, print).cancel()
            await wait_until(lambda: not _contexts(others), what="their contexts are free")
        finally:
            gc.enable()


def _contexts(others=()):
    known = set(map(id, others))
    return [
        each for each in gc.get_objects() if isinstance(each, RunContext) and id(each) not in known
    ]


async def _ends(parts, expected):
    return await parts.streams.commands.xlen(parts.streams.keys.results) == expected


async def _empty(parts):
    return await parts.streams.commands.xlen(parts.streams.keys.tasks) == 0
