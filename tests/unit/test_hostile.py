"""P10: whatever stands on a stream is read or refused with words, all the way to Postgres' text."""

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import Agent
from orchestrator.db.bulk import texts
from orchestrator.db.recording import (
    INSERT_AUDIT,
    INSERT_DEAD_LETTERS,
    INSERT_RESULTS,
    UPSERT_ATTEMPTS,
    UPSERT_TASKS,
)
from orchestrator.db.spending import INSERT_CALLS
from orchestrator.errors import InvalidInput, Rejected
from orchestrator.fold import fold
from orchestrator.formats.normalise import normalise
from orchestrator.record import HeardEvent, SeenTask, Writes
from orchestrator.rule import ask
from orchestrator.services import auditor
from orchestrator.streams.message import (
    decode,
    decode_call,
    decode_event,
    decode_task,
    dump,
    raw_fields,
)
from tests.faults.agents import ForTheGuard
from tests.faults.hostile import mutated, new_id, valid
from tests.faults.strategies import anything

ENTRY = "1700000000000-0"
ROUNDS = 1_500  # entries of each kind
LARGEST = 256 * 1024  # characters of what a dead letter keeps


def written(writes: Writes) -> None:
    """As text for Postgres, which the driver then encodes."""
    for insert, rows in (
        (UPSERT_TASKS, list(writes.tasks.values())),
        (INSERT_RESULTS, list(writes.results.values())),
        (UPSERT_ATTEMPTS, list(writes.attempts.values())),
        (INSERT_CALLS, list(writes.calls)),
        (INSERT_DEAD_LETTERS, writes.dead_letters),
        (INSERT_AUDIT, writes.audit),
    ):
        for each in texts(rows, insert.columns):
            each.encode()


def read_task(message) -> None:
    task = decode_task(message)
    seen = SeenTask(
        task=task, digest=task.digest, stream="s", entry_id=ENTRY, at=message.taken, said_by="p",
        said_at=message.said_at,
    )  # fmt: skip
    dump(task)
    written(fold({}, [seen]))


def read_event(message) -> None:
    event = decode_event(message)
    heard = HeardEvent(
        event=event, stream="s", entry_id=ENTRY, at=message.taken, said_by="p",
        call=decode_call(message, event),
    )  # fmt: skip
    written(fold({}, [heard]))


def read_act(message) -> None:
    written(Writes(audit=[auditor._entry(message.id, auditor._act(message))]))


def read_alert(message) -> None:
    alert = normalise(message.data, id=message.id, kind="network", received_at=message.taken)
    ask(ForTheGuard(), alert)
    dump(alert).decode()


READERS = {
    "task": (read_task, {"agent": "a", "input": {"n": 1, "word": "x"}, "queue": "default"}),
    "event": (
        read_event,
        {"task_id": new_id(Random(1)), "agent": "a", "event": "succeeded", "attempt": 1,
         "at": "2026-01-01T00:00:00Z", "output": {"n": 1}, "worker": "w"},
    ),
    "usage": (
        read_event,
        {"task_id": new_id(Random(1)), "agent": "a", "event": "usage", "attempt": 1,
         "usage": {"id": new_id(Random(2)), "model": "a:b", "input_tokens": 1, "cost_usd": "0.1"}},
    ),
    "act": (
        read_act,
        {"action": "key.created", "actor": "x", "object_type": "key", "object_id": "1",
         "at": "2026-01-01T00:00:00Z", "detail": {"a": 1}, "producer": "p", "sequence": 1},
    ),
    "alert": (
        read_alert,
        {"event_type": "alert", "timestamp": "2026-01-01T00:00:00Z", "src_ip": "192.0.2.1",
         "src_port": 1, "alert": {"signature": "s", "signature_id": 1, "severity": 2}},
    ),
    "device": (
        read_alert, {"device": "pump", "metric": "m", "value": 1, "severity": "high", "time": 1},
    ),
    "own": (
        read_alert, {"signature": "s", "severity": "low", "details": {"a": [1]}, "src_port": 5},
    ),
}  # fmt: skip


def read(kind: str, fields: dict[bytes, bytes]) -> bool:
    """True when it was read; refused is refused with words, and kept within bounds."""
    kept = raw_fields(fields)
    assert sum(len(name) + len(value) for name, value in kept.items()) <= LARGEST
    reader, _ = READERS[kind]
    try:
        reader(decode(fields, stream="s", entry_id=ENTRY, limit=256 * 1024))
    except Rejected as error:
        said = str(error)
    else:
        return True
    assert 0 < len(said) <= LARGEST
    return False


@pytest.mark.parametrize("kind", READERS)
def test_a_mutated_entry_is_read_or_refused(kind):
    """Bytes flipped, cut, swapped, doubled, of another type, too long, too deep: never a crash."""
    rng = Random(kind)
    _, data = READERS[kind]
    assert read(kind, dict(valid(data, rng)))

    found = [read(kind, dict(mutated(data, rng).fields)) for _ in range(ROUNDS)]

    assert 0.1 * ROUNDS < sum(found) < 0.9 * ROUNDS  # the mutator neither breaks all nor nothing


@given(st.data())
@settings(max_examples=600)
def test_any_object_is_read_or_refused(data):
    """The names of the wire with any JSON beneath them."""
    kind = data.draw(st.sampled_from([*READERS]))
    _, known = READERS[kind]
    changed = data.draw(st.dictionaries(st.sampled_from([*known, "extra"]), anything))

    read(kind, {b"data": json.dumps({**known, **changed}).encode()})


class Counts(Agent[list[int], int]):
    async def run(self, task_input, ctx):
        return len(task_input)


def test_an_input_that_is_wrong_throughout_has_a_short_error():
    """A hundred thousand wrong items are not a hundred thousand lines in the record."""
    with pytest.raises(InvalidInput, match="and 99980 more") as raised:
        Counts.load_input(["x"] * 100_000)

    assert len(str(raised.value)) < LARGEST
