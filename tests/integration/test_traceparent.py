"""The span that sent a task goes with it wherever it goes, also where nothing is traced."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator import Agent, Retry, RunContext
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.task import Task, new_id
from tests.acceptance.test_promises import xadd
from tests.collector import Collector, Seen, collector
from tests.integration.test_recording import reconciler, record_all
from tests.integration.test_spine import Shout, Text, rows, running
from tests.support import wait_until

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Whence(Agent[dict[str, Any], str]):
    """Fails once, then says which span its task came from."""

    name = "whence"
    retry = Retry(max_attempts=2, base=timedelta(milliseconds=10))

    async def run(self, task_input: dict[str, Any], ctx: RunContext) -> str:
        if ctx.attempt == 1:
            raise RuntimeError("the first attempt fails")
        return ctx.task.traceparent or "nowhere"


@pytest.fixture
async def parts(settings, streams):
    found = Parts(settings, role="test", registry=AgentRegistry([Shout]))
    await found.streams.ensure_all_groups()
    yield found
    await found.close()


async def test_a_foreign_producers_span_is_kept_over_delay_and_retry(settings, database, streams):
    """By XADD alone: postponed, promoted, tried, tried again; what is no traceparent is ignored."""
    # By each, what is sent and what is kept.
    sent = {
        new_id(): (traceparent, kept)
        for traceparent, kept in (
            (GIVEN, GIVEN),
            (GIVEN.upper(), None),
            ("00-" + "0" * 32 + GIVEN[35:], None),
            ("ff" + GIVEN[2:], None),
            (GIVEN + "-" + "x" * 100_000, None),
            ("", None),
        )
    }
    url = settings.redis_url.get_secret_value()
    async with running(settings, Whence):
        for task_id, (traceparent, _) in sent.items():
            soon = datetime.now(UTC) + timedelta(milliseconds=200)
            data = {"agent": "whence", "run_at": soon.isoformat(), "traceparent": "in data"}
            await asyncio.to_thread(
                xadd, url, "XADD", streams.keys.tasks, "*", "id", task_id,
                "traceparent", traceparent, "data", json.dumps(data),
            )  # fmt: skip

        async def ended() -> list[dict[str, Any]]:
            found = await rows(
                database,
                "SELECT t.id::text, traceparent, output FROM tasks t JOIN results ON task_id = id",
            )
            return found if len(found) == len(sent) else []

        found = await wait_until(ended, what="all ended")

    for row in found:
        kept = sent[row["id"]][1]
        assert (row["traceparent"], row["output"]) == (kept, kept or "nowhere")


async def entry_fields(parts: Parts) -> dict[str, str | None]:
    """By task, the traceparent of the entry on the stream."""
    entries = await parts.streams.commands.xrange(parts.streams.keys.tasks)
    found = {fields[b"id"].decode(): fields.get(b"traceparent") for _, fields in entries}
    return {task_id: value and value.decode() for task_id, value in found.items()}


async def test_the_record_keeps_it_for_who_publishes_again(parts):
    """Accepted and never published, or published and lost: the reconciler's entry names it, too."""
    unpublished, lost, plain = (Shout.task(Text(text=each)) for each in "abc")
    unpublished, lost = (
        each.model_copy(update={"traceparent": GIVEN}) for each in (unpublished, lost)
    )
    await parts.store.accept([unpublished], actor="test")
    await parts.submitter.submit_many([lost, plain], durability="stream")
    assert await entry_fields(parts) == {lost.task_id: GIVEN, plain.task_id: None}
    await record_all(parts)
    await parts.streams.commands.delete(parts.streams.keys.tasks)
    await parts.streams.ensure_all_groups()
    sweeper = reconciler(parts)

    async def published() -> bool:
        await sweeper.sweep()
        await record_all(parts)
        return len(await entry_fields(parts)) == 3

    await wait_until(published, what="all on the stream again")
    assert await entry_fields(parts) == {
        unpublished.task_id: GIVEN, lost.task_id: GIVEN, plain.task_id: None,
    }  # fmt: skip
    entry = await parts.streams.commands.xrange(parts.streams.keys.tasks)
    assert all(b"traceparent" not in fields[b"data"] for _, fields in entry)


async def test_a_row_takes_the_span_of_the_message_it_waited_for(parts):
    """A tick's row is committed before anybody sends it; the first span that does is kept."""
    task = Shout.task(Text(text="tick"))
    await parts.store.accept([task], actor="test")
    for span in (GIVEN, GIVEN.replace("b7-01", "b8-01")):
        await parts.publisher.publish(task.model_copy(update={"traceparent": span}))
        await record_all(parts)

    assert await rows(parts.database, "SELECT traceparent FROM tasks") == [{"traceparent": GIVEN}]


@pytest.fixture
def collected(monkeypatch) -> Iterator[Collector]:
    """Where the spans of this process go."""
    with collector() as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


def span_of(collected: Collector, kind: str, task: Task) -> Seen | None:
    wanted = (f"{kind} ", task.task_id)
    spans = collected.spans
    return next(
        (s for s in spans if s.name.startswith(wanted[0])
         and s.attributes.get("aurora.task.id") == wanted[1]), None,
    )  # fmt: skip


async def test_tasks_of_schedules_and_alerts_each_begin_a_trace(collected, settings, streams):
    """Their rows are committed in transactions of their own, and published together."""
    parts = Parts(settings, role="test", registry=AgentRegistry([Shout]))
    await parts.streams.ensure_all_groups()
    tick = Shout.task(Text(text="tick"), metadata={"schedule_id": new_id()})
    other, joined = Shout.task(Text(text="other")), Shout.task(Text(text="joined"))
    await parts.store.accept([tick, other], actor="test")
    await parts.submitter.publish_accepted([tick, other])
    async with parts.database.session() as session:
        await parts.submitter.submit(joined, session=session)
        await session.commit()
    await wait_until(lambda: entry_fields_of(parts, 3), what="three entries")
    sent = await entry_fields(parts)
    await parts.close()

    spans = [span_of(collected, "send", each) for each in (tick, other, joined)]
    for task, span in zip((tick, other, joined), spans, strict=True):
        assert sent[task.task_id].startswith(f"00-{span.trace_id}-{span.span_id}-")
    assert len({each.trace_id for each in spans}) == 3
    assert spans[0].attributes["aurora.schedule.id"] == tick.metadata["schedule_id"]


async def entry_fields_of(parts: Parts, count: int) -> bool:
    return len(await entry_fields(parts)) == count


async def test_a_trace_says_why_a_task_never_began(collected, settings, database, streams):
    """Expired, of no agent, or with an input that is none: a span with the reason."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    late = Shout.task(Text(text="late"), expires_at=past)
    strange = late.model_copy(update={"task_id": new_id(), "agent": "no", "expires_at": None})
    wrong = strange.model_copy(update={"task_id": new_id(), "agent": "shout", "input": {"n": 1}})
    async with running(settings, Shout) as parts:
        for each in (late, strange, wrong):
            await parts.publisher.publish(each.model_copy(update={"traceparent": GIVEN}))
        spans = [
            await wait_until(lambda task=task: span_of(collected, "process", task), what="a span")
            for task in (late, strange, wrong)
        ]

    outcomes = [(s.attributes["aurora.outcome"], s.attributes.get("error.type")) for s in spans]
    assert outcomes == [("expired", None), ("dead", "unknown_agent"), ("dead", "invalid_input")]
    assert {each.parent_id for each in spans} == {"00f067aa0ba902b7"}
