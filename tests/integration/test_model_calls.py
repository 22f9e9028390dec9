"""What calls of models cost, from the results stream into the record: kept once, lost never."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.budget import Budget
from orchestrator.db.reconciling import OpenTasks
from orchestrator.db.recording import lock_known, record, write
from orchestrator.event import EventKind
from orchestrator.fold import fold
from orchestrator.record import Writes
from orchestrator.streams.names import RESULTS
from orchestrator.task import Durability, new_id
from orchestrator.usage import Usage
from tests.integration.test_recording import parts, reconciler, record_all  # noqa: F401 - a fixture
from tests.integration.test_spine import Shout, Text, rows
from tests.support import wait_until
from tests.unit.test_record import TASK, heard, seen, spent

FIGURES = {"input_tokens": 120, "output_tokens": 8, "cached_tokens": 100, "tool_calls": 1}


async def keep(database, *messages) -> None:
    await record(database, messages, also=Writes())


async def usage_of(database, task_id: str = TASK.task_id):
    """Of the result, and of each attempt with its state."""
    found = await rows(database, "SELECT usage FROM results WHERE task_id = :id", id=task_id)
    lines = await rows(
        database,
        "SELECT attempt, state, usage FROM attempts WHERE task_id = :id ORDER BY attempt",
        id=task_id,
    )
    return (
        found[0]["usage"] if found else None,
        {each["attempt"]: (each["state"], each["usage"]) for each in lines},
    )


def usage(*messages) -> dict:
    return Usage.of(each.call for each in messages).as_json()


async def test_what_a_task_spent_is_with_its_result_and_its_attempts(database):
    """A first attempt that just succeeds has a line as well, where it called a model."""
    calls = [spent(2, cost_usd="0.000123", **FIGURES), spent(3, **FIGURES)]

    await keep(database, seen(1), *calls, heard(4, EventKind.SUCCEEDED))

    whole, lines = await usage_of(database)
    assert whole == usage(*calls)
    assert (whole["requests"], whole["cost_usd"], whole["unpriced_requests"]) == (2, "0.000123", 1)
    assert lines == {1: ("succeeded", whole)}


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unseen"])
@pytest.mark.parametrize("first", ["call", "end"])
async def test_two_recorders_with_a_call_and_an_end_both_count(database, first, is_known):
    """Neither sees what the other has not committed; the second one waits, and reckons then."""
    call, end = spent(3, **FIGURES), heard(4, EventKind.SUCCEEDED)
    mine, others = (call, end) if first == "call" else (end, call)
    if is_known:
        await keep(database, seen(1))

    async with database.transaction() as connection:
        known = await lock_known(connection, [TASK.task_id])
        await write(connection, fold(known, [mine]))
        ((me,),) = await connection.exec_driver_sql("SELECT pg_backend_pid()")
        second = asyncio.create_task(keep(database, others))
        await wait_until(lambda: waits(database, me, second), what="the second waits, or is done")
    await second

    assert await usage_of(database) == (usage(call), {1: ("succeeded", usage(call))})


async def waits(database, pid: int, task: asyncio.Task[None]) -> bool:
    blocked = "SELECT pid FROM pg_stat_activity WHERE :me = ANY(pg_blocking_pids(pid))"
    return task.done() or bool(await rows(database, blocked, me=pid))


async def test_a_call_after_the_end_still_counts_and_one_read_twice_counts_once(database):
    """A worker that was given up goes on paying until it notices."""
    early, late = spent(2, **FIGURES), spent(9, attempt=2, output_tokens=7)
    await keep(database, seen(1), early, heard(4, EventKind.SUCCEEDED))

    for _ in range(2):
        await keep(database, late, early)

    whole, lines = await usage_of(database)
    assert whole == usage(early, late)
    assert lines == {1: ("succeeded", usage(early)), 2: ("superseded", usage(late))}
    (total,) = await rows(database, "SELECT * FROM usage_totals")
    assert (total["requests"], total["output_tokens"]) == (2, 15)


async def test_a_killed_attempt_has_a_line_with_what_it_spent(database):
    """Killed before anybody heard of its start; and one that was killed while it retried."""
    killed, second, third = spent(2, input_tokens=5), spent(5, attempt=2), spent(7, attempt=3)
    await keep(database, seen(1), killed)
    assert await usage_of(database) == (None, {1: ("running", usage(killed))})

    await keep(database, heard(4, EventKind.STARTED, attempt=2, crashes=1), second)
    await keep(database, heard(6, EventKind.RETRYING, attempt=2, crashes=1), third)
    await keep(database, heard(8, EventKind.FAILED, attempt=3, crashes=1, error={"type": "E"}))

    whole, lines = await usage_of(database)
    assert whole == usage(killed, second, third)
    assert lines == {
        1: ("crashed", usage(killed)),
        2: ("retrying", usage(second)),
        3: ("failed", usage(third)),
    }


async def test_a_task_that_was_cancelled_after_a_kill_leaves_no_attempt_open(database):
    """The next attempt never came; the line does not say for ever that it runs."""
    call, end = spent(2, input_tokens=5), heard(4, EventKind.CANCELLED, attempt=2)
    await keep(database, seen(1), call, seen(3, attempt=2), end)

    whole, lines = await usage_of(database)
    assert whole == usage(call)
    assert lines == {1: ("crashed", whole), 2: ("cancelled", None)}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, '"usage" has to say'),
        ({"model": "a:b", "input_tokens": -1}, "input_tokens: Input should be greater"),
        ({"input_tokens": 1}, "model: Field required"),
        ({"model": "a:b", "cost_usd": "NaN"}, "cost_usd"),
        ({"model": "a:b", "output_tokens": "many"}, "output_tokens"),
        ({"model": "a:b", "id": "first"}, "id"),
    ],
)
async def test_a_bad_usage_is_a_dead_letter_that_says_what_is_wrong(parts, database, said, reason):  # noqa: F811
    """P10: of whatever producer; the task goes on, and what was said is kept."""
    event = {"task_id": TASK.task_id, "agent": "triage", "event": "usage", "usage": said}
    good = event | {"usage": {"model": "a:b", "input_tokens": 3}}
    for each in (event, good):
        await parts.publisher.publish_data(RESULTS, json.dumps(each).encode())

    await record_all(parts)

    (letter,) = await rows(database, "SELECT reason, detail, fields FROM dead_letters")
    assert letter["reason"] == "malformed"
    assert reason in letter["detail"]
    assert json.loads(letter["fields"]["data"]) == event
    (call,) = await rows(database, "SELECT input_tokens, cost_usd FROM model_calls")
    assert (call["input_tokens"], call["cost_usd"]) == (3, None)


async def test_another_call_under_an_id_that_is_taken_is_set_aside(parts, database):  # noqa: F811
    """A producer that numbers its calls anew: nothing of what it says it spent is dropped."""
    call = {"id": new_id(), "model": "a:b", "input_tokens": 3}
    event = {"task_id": TASK.task_id, "agent": "triage", "event": "usage"}
    for tokens in (3, 3, 4):
        said = event | {"usage": call | {"input_tokens": tokens}}
        await parts.publisher.publish_data(RESULTS, json.dumps(said).encode())

    await record_all(parts)

    (kept,) = await rows(database, "SELECT input_tokens FROM model_calls")
    (letter,) = await rows(database, "SELECT reason, detail FROM dead_letters")
    assert kept["input_tokens"] == 3
    assert letter["reason"] == "unrecordable"
    assert "is the id of another call already" in letter["detail"]


@pytest.mark.parametrize("durability", Durability)
async def test_a_budget_survives_the_record(parts, database, durability):  # noqa: F811
    """Accepted or only seen, lost with Redis and published again: it may spend no more."""
    budget = Budget(requests=3, usd="0.0150")
    task = Shout.task(Text(text="x")).model_copy(update={"budget": budget})
    await parts.submitter.submit(task, durability=durability)
    await record_all(parts)
    (row,) = await rows(database, "SELECT budget FROM tasks")
    assert row["budget"] == {"requests": 3, "usd": "0.0150"}
    ((entry_id, first),) = await parts.streams.commands.xrange(parts.streams.keys.tasks)
    await parts.streams.commands.xdel(parts.streams.keys.tasks, entry_id)

    sweeper = reconciler(parts)
    for _ in range(3):
        await sweeper.sweep()
    ((_, again),) = await parts.streams.commands.xrange(parts.streams.keys.tasks)

    assert json.loads(again[b"data"])["budget"] == json.loads(first[b"data"])["budget"]
    found = await OpenTasks(database).again([task.task_id])
    assert found[task.task_id].next_message().budget == budget


async def test_a_budget_survives_acceptance_in_bulk(parts, database):  # noqa: F811
    """Many at once, with and without."""
    tasks = [Shout.task(Text(text=str(n))) for n in range(3)]
    tasks[1] = tasks[1].model_copy(update={"budget": Budget(tokens=2_000)})
    await parts.submitter.submit_many(tasks)

    found = await rows(database, "SELECT input, budget FROM tasks ORDER BY input->>'text'")
    assert [each["budget"] for each in found] == [None, {"tokens": 2_000}, None]


async def test_a_call_of_an_unseen_task_does_not_make_it_run(database):
    """It has a row and a line of an attempt; what it is to do comes with its message."""
    await keep(database, spent(2, **FIGURES))
    (row,) = await rows(database, "SELECT state, started_at FROM tasks")
    assert (row["state"], row["started_at"]) == ("queued", None)

    later = datetime.now(UTC) + timedelta(hours=1)
    await keep(database, seen(3, task=TASK.model_copy(update={"run_at": later})))

    (row,) = await rows(database, "SELECT state, run_at, input FROM tasks")
    assert (row["state"], row["run_at"], row["input"]) == ("scheduled", later, TASK.input)
