"""P6: an attempt in a child process of its own: what it may do there, and how it may end."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from orchestrator import Agent, TaskState
from orchestrator.client import Receipt, set_submitter
from orchestrator.context import RunContext
from orchestrator.errors import TaskIdConflict
from orchestrator.event import EventKind, TaskEvent
from orchestrator.outcome import Completed, Crashed, Failed, Outcome, Retrying
from orchestrator.parts import Models
from orchestrator.runtime.child_process import TAIL
from orchestrator.runtime.isolated import IsolatedRunner
from orchestrator.settings import Settings
from tests.integration.poisons import Computing, Hung, Plain, PlainHung, Poison, Word
from tests.integration.test_spine import Shout, Text, rows, running
from tests.support import wait_until

ROOT = Path(__file__).parent.parent.parent
MAX_OUTPUT = 1024 * 1024
MODELS = Models(Settings(agents=()))


class Submitter:
    """Takes what agents submit; one task id is taken already."""

    def __init__(self) -> None:
        self.tasks = []

    async def submit_many(self, tasks, *, durability=None):
        for task in tasks:
            if task.task_id == task.parent_id:
                raise TaskIdConflict(task.task_id)
        self.tasks += tasks
        return [Receipt(task_id=task.task_id, entry_id="1-0") for task in tasks]

    async def state(self, task_id):
        return TaskState.RUNNING

    async def ended(self, task_id, *, since, timeout, recorded):
        return TaskEvent(
            task_id=task_id, agent="poison", event=EventKind.SUCCEEDED, at=datetime.now(UTC),
            output={"done": since},
        )  # fmt: skip


class Seen:
    """What a run said on its way."""

    def __init__(self) -> None:
        self.progress: list[dict] = []
        self.submitter = Submitter()

    async def run(self, agent: type[Agent], word: str, **changes) -> Outcome:
        context = replace(self.context(agent, word), **changes)
        runner = IsolatedRunner(self.submitter, MODELS, max_output=MAX_OUTPUT)
        return await runner.run(agent(), context)

    def context(self, agent: type[Agent], word: str) -> RunContext:
        async def emit(detail):
            self.progress.append(detail)
            return True

        async def read(sql, params):
            return [{"at": datetime.now(UTC), "n": params["n"]}]

        return RunContext(
            task=agent.task(Word(word=word)), attempt=1, worker="w", emit=emit, read=read,
            deadline=datetime.now(UTC) + agent.timeout,
        )  # fmt: skip


@pytest.fixture
def seen() -> Seen:
    return Seen()


def output(outcome: Outcome) -> dict:
    assert isinstance(outcome, Completed), outcome
    return json.loads(outcome.output)


async def gone(*pids: int) -> None:
    """Each has ended (who adopted it may not have looked yet); what has not is ended here."""

    def ended(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    try:
        await wait_until(lambda: all(map(ended, pids)), what=f"{pids} gone", timeout=5)
    finally:
        end(*pids)


def end(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_an_agent_works_there_as_anywhere(seen, caplog):
    """progress, query, delay, map, get, state and the logger, without Redis and Postgres there."""
    with caplog.at_level(logging.DEBUG):
        found = output(await seen.run(Poison, "works", attempt=2))

    task = seen.submitter.tasks[0]
    assert found.pop("pid") != os.getpid()
    assert found == {
        "owned": True, "row": "datetime", "child": task.task_id, "state": "running", "many": 2,
        "ended": {"done": "1-0"}, "attempt": 2, "worker": "w", "parent": True,
    }  # fmt: skip
    assert seen.progress == [{"share": 0.5}]
    assert task.input == {"word": "later"}
    assert task.parent_id
    said = [(each.name, each.getMessage()) for each in caplog.records]
    assert ("aurora.agent", "a word from inside") in said
    assert any(name == "aurora.child" and "hello from" in text for name, text in said)


async def test_a_plain_def_works_there_too(seen):
    """In a thread of the child's, which can ask for things as well."""
    found = output(await seen.run(Plain, ""))

    assert found["pid"] != os.getpid()
    assert found["told"] is True
    assert seen.progress == [{"n": 1}]


async def test_no_password_is_in_its_environment(seen, monkeypatch):
    """It asks its worker; what it needs itself (a model's key) is there."""
    for name in ("AURORA_REDIS_URL", "AURORA_DATABASE_URL", "AURORA_API_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("MODEL_KEY", "given")

    found = output(await seen.run(Poison, "environment"))

    assert "secret" not in found.values()
    assert found["MODEL_KEY"] == "given"


async def test_an_error_is_caught_there_as_what_it_is(seen):
    """The submitter's TaskIdConflict, with its data."""
    context = seen.context(Poison, "conflicts")

    found = output(await seen.run(Poison, "conflicts", task=context.task))

    assert found == {"conflict": context.task_id}


POISONS = {
    (Poison, "aborts"): "ended by SIGABRT",
    (Poison, "segfaults"): "ended by SIGSEGV",
    (Poison, "exits"): "ended with exit code 7",
    (Poison, "leaves_from_a_callback"): "ended with exit code 7",
    (Plain, "exits"): "ended with exit code 3",
    (Computing, "loops"): "ended by SIGXCPU (its cpu_limit)",
    (Poison, "garbles"): "said what is no message",
    (Poison, "floods"): "said what is no message",
    (Poison, "forges"): "said what is no message",
    # By its own end, which finds no channel, or by its uplink, which may find that first.
    (Poison, "closes_everything"): "ended ",
    (Poison, "hangs_up"): "closed its channel",
}


@pytest.mark.parametrize(("agent", "word"), POISONS, ids=lambda part: getattr(part, "name", part))
async def test_a_child_that_dies_is_a_crash_of_its_attempt(seen, agent, word):
    """Told with worker and signal or exit code; nothing else of the worker's ends."""
    outcome, neighbour = await asyncio.gather(seen.run(agent, word), seen.run(Plain, ""))

    assert isinstance(outcome, Crashed)
    assert POISONS[agent, word] in outcome.fault.message
    assert "of worker w" in outcome.fault.message
    assert isinstance(neighbour, Completed)


async def test_the_end_of_its_output_is_evidence(seen):
    """The last 8 KB: its own words, and from the interpreter the line that killed it."""
    outcome = await seen.run(Poison, "aborts")

    assert isinstance(outcome, Crashed)
    tail = outcome.fault.traceback or ""
    assert "the last words" in tail
    assert "in aborts" in tail
    assert len(tail) <= TAIL


@pytest.mark.parametrize(
    ("word", "fault"), [("leaves", "SystemExit"), ("allocates", "MemoryError")]
)
async def test_what_python_can_still_tell_is_an_ordinary_fault(seen, word, fault):
    """sys.exit and too much memory: by the agent's retry policy, as in the worker."""
    outcome = await seen.run(Poison, word)

    assert isinstance(outcome, Failed)
    assert outcome.fault.type == fault


async def test_a_forked_process_has_no_say(seen):
    """F32: both return; the result is the child's own, though the other was first."""
    found = output(await seen.run(Poison, "forks"))

    assert found["pid"] == found["mine"]


@pytest.mark.parametrize("word", ["waits", "sleeps", "loops", "holds_the_lock"])
async def test_at_the_deadline_it_is_killed_with_all_that_it_started(seen, word):
    """Whatever it does then: the fault is the runner's own, and says where it stood."""
    outcome = await seen.run(Hung, word)

    assert isinstance(outcome, Failed)
    assert (outcome.fault.type, outcome.fault.message) == (
        "Timeout",
        "not done after 1 s (hung.timeout)",
    )
    assert f"in {word}" in (outcome.fault.traceback or "")
    await gone(*seen.progress[0]["pids"])


async def test_a_plain_def_that_hangs_is_ended(seen):
    """In the worker its thread would run on; here nothing does."""
    outcome = await seen.run(PlainHung, "")

    assert isinstance(outcome, Failed)
    assert outcome.fault.type == "Timeout"


async def test_a_cancelled_attempt_leaves_nothing_behind(seen):
    """The task was cancelled, the entry lost, or the worker stops: the child is dead."""
    attempt = asyncio.create_task(seen.run(Hung, "sleeps"))
    await wait_until(lambda: seen.progress, what="it runs")

    attempt.cancel()
    await asyncio.wait({attempt})

    assert attempt.cancelled()
    await gone(*seen.progress[0]["pids"])


async def test_an_agent_that_a_child_cannot_find_says_so(seen):
    """A class made in a function: the module has no such name."""

    class Local(Agent[Word, dict]):
        isolation = "process"

        async def run(self, task_input: Word, ctx: RunContext) -> dict:
            return {}

    outcome = await seen.run(Local, "")

    assert isinstance(outcome, Retrying)
    assert outcome.fault.type == "UnknownAgent"
    assert "local" in outcome.fault.message


ORPHANS = """
import asyncio, sys
from tests.integration.poisons import Hung
from tests.integration.test_isolation import Seen

class Told(list):
    def append(self, said):
        print(*said["pids"], flush=True)

seen = Seen()
seen.progress = Told()
asyncio.run(seen.run(Hung, sys.argv[1]))
"""


@pytest.mark.parametrize("word", ["sleeps", "holds_the_lock"])
async def test_a_killed_workers_children_die_with_it(word):
    """SIGKILL leaves no time to end them: the kernel does."""
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANS, word], cwd=ROOT, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        said = await asyncio.to_thread(worker.stdout.readline)
        child, *others = map(int, said.split())
        assert psutil.pid_exists(child)
        if word == "holds_the_lock":
            # It has told before it begins: until then its uplink would see that the worker is gone.
            computing = psutil.Process(child).cpu_times
            begun = computing().user + 0.1
            await wait_until(lambda: computing().user > begun, what="it holds the lock")

        worker.send_signal(signal.SIGKILL)
        worker.wait()

        end(*others)  # what the child has started itself is out of the kernel's reach
        await gone(child)


async def test_three_deaths_are_recorded_and_set_it_aside(settings, database, streams):
    """P6: three crashed attempts, a dead letter with the evidence, and a neighbour's result."""
    async with running(settings, Poison, Shout) as live:
        set_submitter(live.submitter)
        poison = await Poison.delay(Word(word="aborts"))
        neighbour = await Shout.delay(Text(text="hello"))
        assert (await neighbour.get(timeout=10)).text == "HELLO"

        (letter,) = await wait_until(
            lambda: rows(database, "SELECT * FROM dead_letters"), what="set aside"
        )

    assert letter["reason"] == "crashed"
    for evidence in ("3 starts", live.name, "SIGABRT", "the last words", "in aborts"):
        assert evidence in letter["detail"]
    (task,) = await rows(database, "SELECT * FROM tasks WHERE agent = 'poison'")
    assert str(task["id"]) == poison.task_id
    assert (task["state"], task["attempt"], task["crashes"]) == ("dead", 3, 3)
    attempts = await rows(database, "SELECT * FROM attempts ORDER BY attempt")
    assert [(each["attempt"], each["state"]) for each in attempts] == [
        (1, "crashed"), (2, "crashed"), (3, "crashed"),
    ]  # fmt: skip
    assert "SIGABRT" in attempts[0]["error"]["message"]
    audit = await rows(
        database, "SELECT detail FROM audit_events WHERE action = 'attempt.crashed' ORDER BY at"
    )
    assert [each["detail"]["attempt"] for each in audit] == [1, 2, 3]


async def test_a_suspect_runs_in_a_process_of_its_own(settings, database, streams):
    """P6: two starts did not end: whatever its agent asks for, it does not run among the others."""
    async with running(settings, Innocent) as live:
        task = Innocent.task(Word()).model_copy(update={"attempt": 3, "crashes": 2})
        await live.submitter.submit(task, durability="stream")
        (row,) = await wait_until(lambda: rows(database, "SELECT output FROM results"), what="done")

    assert row["output"]["pid"] != os.getpid()


class Innocent(Agent[Word, dict]):
    timeout = timedelta(seconds=20)

    async def run(self, task_input: Word, ctx: RunContext) -> dict:
        return {"pid": os.getpid()}
