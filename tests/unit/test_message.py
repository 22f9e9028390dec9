"""The wire: what we write we read, and whatever others write is read or refused, never a crash."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestrator.agent import Agent
from orchestrator.errors import MalformedMessage, PayloadTooLarge, Rejected
from orchestrator.streams.message import (
    KEPT,
    LATEST,
    decode,
    decode_task,
    dump,
    encode,
    entry_time,
    raw_fields,
)
from orchestrator.task import Priority, Task, content_digest, idempotent_id, new_id

ENTRY = "1700000000000-0"
AT = entry_time(ENTRY)

plain_text = st.text(st.characters(exclude_categories=["Cs"]))
floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | floats | plain_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain_text, inner, max_size=4),
    max_leaves=12,
)
KNOWN = [
    "agent", "input", "task_id", "queue", "priority", "attempt", "expires_at", "run_at", "tenant",
    "metadata", "idempotency_key",
]  # fmt: skip


class Reading(BaseModel):
    value: float
    raw: Any = None


class Measure(Agent[Reading, Reading]):
    pass


def as_bytes(fields: dict[str, Any]) -> dict[bytes, bytes]:
    return {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in fields.items()}


def read(data: str | bytes, **fields: str):
    return decode(as_bytes({"data": data, **fields}), stream="s", entry_id=ENTRY)


@example(value=float("inf"), raw=None)
@given(value=st.floats(), raw=st.none() | st.floats() | st.lists(st.floats(), max_size=3))
def test_a_task_is_to_its_reader_what_it_was_to_its_sender(value, raw):
    """P1: also where JSON has no word for a value; another digest would be a conflict."""
    task = Measure.task(Reading(value=value, raw=raw))

    found = decode_task(read(dump(task)))

    assert (found.input, found.digest) == (task.input, task.digest)


@pytest.mark.parametrize(
    "value", [AT, AT.date(), timedelta(minutes=1), UUID(new_id()), {"a"}, b"x"]
)
def test_an_input_put_together_by_hand_is_what_its_text_says(value):
    """Values of Python, not by way of a model: the reader gets other types, never a conflict."""
    task = Task(task_id=new_id(), agent="measure", input={"raw": value})

    found = decode_task(read(dump(task)))

    assert (found.input, found.digest) == (json.loads(dump(task))["input"], task.digest)


@given(
    payload=st.dictionaries(plain_text, json_values, max_size=4),
    attempt=st.integers(min_value=1, max_value=1000),
    priority=st.sampled_from(Priority),
)
def test_a_task_survives_the_wire(payload, attempt, priority):
    """Whatever we encode, we decode to the same task, and to the same digest."""
    task = Task(task_id=new_id(), agent="shout", attempt=attempt, input=payload, priority=priority)
    fields = as_bytes(encode(dump(task), at=AT, producer="p"))

    found = decode_task(decode(fields, stream="s", entry_id=ENTRY))

    assert found == task
    assert found.digest == task.digest


@given(
    raw=st.dictionaries(
        st.sampled_from([b"id", b"timestamp", b"data", b"x"]), st.binary(max_size=200)
    )
)
def test_any_bytes_are_read_or_refused(raw):
    """A foreign producer's worst entry raises Rejected with words, nothing else."""
    with contextlib.suppress(Rejected):
        decode_task(decode(raw, stream="s", entry_id=ENTRY))


@given(data=st.dictionaries(st.sampled_from(KNOWN), json_values))
def test_any_object_is_a_task_or_refused(data):
    """Wrong types in known fields are named, not crashed on."""
    with contextlib.suppress(Rejected):
        decode_task(read(json.dumps(data)))


def test_only_data_is_required():
    """`{"agent", "input"}` is enough: the id is derived and stable, the time the entry's own."""
    first, again = read('{"agent":"a"}'), read('{"agent":"a"}')

    assert first.id == again.id
    assert first.at == AT
    assert decode_task(first).input == {}
    assert decode_task(first).task_id == first.id


def test_a_message_published_twice_is_one_task():
    """The task id defaults to the message id."""
    message_id = new_id()
    assert decode_task(read('{"agent":"a"}', id=message_id)).task_id == message_id


def test_an_idempotency_key_derives_the_task_id_over_bare_xadd():
    """Same tenant, agent and key: the same task, whatever the message's id."""
    body = '{"agent":"a","idempotency_key":"k"}'
    one, two = (decode_task(read(body, id=new_id())) for _ in range(2))
    assert one.task_id == two.task_id == idempotent_id(tenant="default", agent="a", key="k")


@pytest.mark.parametrize(
    ("text", "expected", "kept"),
    [
        (AT.replace(tzinfo=None).isoformat(), AT, None),
        (AT.isoformat(), AT, None),
        ("yesterday", AT, "yesterday"),
        ("9999-12-31T23:59:59", AT, "9999-12-31T23:59:59"),
        ((AT + timedelta(days=2)).isoformat(), AT, (AT + timedelta(days=2)).isoformat()),
    ],
)
def test_a_timestamp_is_used_or_replaced_and_kept(text, expected, kept):
    """Naive means UTC; unreadable or absurd gives the entry's own time, with the text beside it."""
    found = read('{"agent":"a"}', timestamp=text)
    assert found.at == expected
    assert found.said_at == kept


def test_over_the_size_cap():
    """The error says the size, the limit and the setting."""
    with pytest.raises(PayloadTooLarge, match="AURORA_MAX_PAYLOAD"):
        decode({b"data": b"x" * 100}, stream="s", entry_id=ENTRY, limit=50)


@pytest.mark.parametrize(
    "raw", ['{"agent":"a","input":{"x":1e400}}', '{"a":NaN}', "[" * 100_000, '"\\ud800"']
)
def test_json_that_is_none(raw):
    """Infinity, depth and lone surrogates are refused with words."""
    with pytest.raises(MalformedMessage):
        decode_task(read(raw))


def test_key_order_does_not_change_the_digest():
    """Two messages of one task agree although their producers write JSON differently."""
    assert content_digest("a", {"x": 1, "y": [1, 2]}) == content_digest("a", {"y": [1, 2], "x": 1})
    deep = [{"u": 1, "v": {"w": 2, "x": 3}}]
    turned = [{"v": {"x": 3, "w": 2}, "u": 1}]
    assert content_digest("a", {"y": deep}) == content_digest("a", {"y": turned})
    assert content_digest("a", {"y": deep}) != content_digest("a", {"y": [*deep, *deep]})
    assert content_digest("a", {"x": 1}) != content_digest("b", {"x": 1})


def test_a_digest_is_what_it_was_when_it_was_recorded():
    """Of other letters, too: a task that is under way during an upgrade is no conflict."""
    assert content_digest("a", {"x": 1}) == "a0c59a8a7d44196adc48fc7e76b2ffd4"
    assert content_digest("a", {"y": "\x7f", "x": "é€😀"}) == "9a38df83100f06c663a1f5fc116d1413"


def test_a_naive_run_at_means_utc():
    """As everywhere on the wire."""
    found = decode_task(read('{"agent":"a","run_at":"2026-01-01T00:00:00"}'))
    assert found.run_at == datetime(2026, 1, 1, tzinfo=UTC)


ID = "01a20b56-2112-708a-911f-fd44f2cd921c"


@pytest.mark.parametrize("spelling", [ID, ID.upper(), f"{{{ID}}}", ID.replace("-", "")])
def test_an_id_has_one_spelling(spelling):
    """Other writers have other ones; a row is found by ours."""
    found = decode_task(read(json.dumps({"agent": "a", "task_id": spelling, "root_id": spelling})))
    assert (found.task_id, found.root_id) == (ID, ID)


@pytest.mark.parametrize("wrong", ["1", f"{ID}\n1", 5, [ID]])
def test_an_id_that_is_none_is_refused_with_what_is_right(wrong):
    with pytest.raises(MalformedMessage, match="task_id: an id is a UUID as text, as in"):
        decode_task(read(json.dumps({"agent": "a", "task_id": wrong})))


@pytest.mark.parametrize("entry_id", ["253402300800000-0", "18446744073709551615-1"])
def test_an_entry_id_of_no_year_is_read(entry_id):
    """XADD takes any id that is larger than the last; each reader of the stream would end by it."""
    found = decode(as_bytes({"data": '{"agent":"a"}'}), stream="s", entry_id=entry_id)

    assert found.at == found.taken == LATEST


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_that_is_none_in_utc_is_refused(moment):
    """Postgres would take it and give back what Python cannot say, to the recorder for ever."""
    with pytest.raises(MalformedMessage, match="years 1 to 9999"):
        decode_task(read(json.dumps({"agent": "a", "run_at": moment})))


def test_a_moment_with_an_offset_beyond_postgres_is_put_into_utc():
    """A flipped bit makes +20:00 of +00:00; the moment is as good as any."""
    found = decode_task(read('{"agent":"a","run_at":"2026-01-01T20:00:00+20:00"}'))
    assert found.run_at is not None
    assert found.run_at.isoformat() == "2026-01-01T00:00:00+00:00"


def test_what_a_dead_letter_keeps_is_bounded():
    """Long names, many fields, bytes that are no text: cut, the wire's own fields first."""
    many = {f"f{i}".encode(): b"\xff" * 1000 for i in range(1000)}

    kept = raw_fields({b"x" * 10_000_000: b"", **many, b"data": b'{"agent":"a"}'})

    assert kept["data"] == '{"agent":"a"}'
    assert sum(len(name) + len(value) for name, value in kept.items()) <= KEPT
