"""The models against the real servers: the same commands and writes must come to the same."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.exceptions import ResponseError
from sqlalchemy import text

from orchestrator.db import recording
from orchestrator.db.session import Database
from orchestrator.event import EventKind, TaskEvent
from orchestrator.fold import fold
from orchestrator.record import HeardEvent, SeenTask, Writes
from orchestrator.streams.connection import Streams
from orchestrator.task import Task
from tests.simulation.postgres_model import Rows
from tests.simulation.redis_keys import RedisError
from tests.simulation.redis_model import Redis

COMMANDS = 300
GROUPS = (b"g1", b"g2")
CONSUMERS = (b"a", b"b")
IDLE = 2  # where XPENDING says how long an entry has been idle


class Both:
    """A real stream and its model, whose entries go by the order in which they came."""

    def __init__(self, streams: Streams, key: str) -> None:
        self.key = key.encode()
        self._real = streams.reader()
        self._now = 1_000
        self._model = Redis(lambda: self._now)
        self.ids: list[tuple[bytes, bytes]] = []

    async def run(self, *command: bytes | int) -> tuple[Any, Any]:
        """The answer of the server and of the model. A number is the entry of that number."""
        self._now += 1
        real, modelled = (
            [self.ids[part][side] if isinstance(part, int) else part for part in command]
            for side in (0, 1)
        )
        try:
            answer = await self._real.call(*real)
        except ResponseError as error:
            answer = str(error).split()[0]
        try:
            expected = self._model.execute(modelled)
        except RedisError as error:
            expected = str(error).removeprefix("ERR ").split()[0]
        if command[0] == b"XADD":
            self.ids.append((answer, expected))
        return self._named(answer, 0), self._named(expected, 1)

    def _named(self, reply: Any, side: int) -> Any:
        if isinstance(reply, list | tuple):
            return [self._named(each, side) for each in reply]
        known = {pair[side]: f"entry {number}" for number, pair in enumerate(self.ids)}
        return known.get(reply, reply)


def command(rng: random.Random, key: bytes, entries: int) -> list[bytes | int]:
    """One of those that Aurora and its scripts use."""
    group, consumer = rng.choice(GROUPS), rng.choice(CONSUMERS)
    some: list[bytes | int] = list(rng.sample(range(entries), min(entries, rng.randint(1, 3))))
    some = some or [b"1-1"]
    one = some[0]
    choices: list[list[bytes | int]] = [
        [b"XADD", key, b"*", b"id", b"%d" % entries],
        [b"XADD", key, b"*", b"id", b"%d" % entries],
        [b"XREADGROUP", b"GROUP", group, consumer, b"COUNT", b"2", b"STREAMS", key, b">"],
        [b"XREADGROUP", b"GROUP", group, consumer, b"COUNT", b"3", b"STREAMS", key, b">"],
        [b"XACK", key, group, *some],
        [b"XDEL", key, one],
        [b"XLEN", key],
        [b"XRANGE", key, one, one],
        [b"XRANGE", key, b"-", b"+", b"COUNT", b"3"],
        [b"XPENDING", key, group],
        [b"XPENDING", key, group, b"-", b"+", b"10"],
        [b"XPENDING", key, group, b"-", b"+", b"2", consumer],
        [b"XPENDING", key, group, one, one, b"1"],
        [b"XCLAIM", key, group, consumer, b"0", *some, b"JUSTID"],
        [b"XCLAIM", key, group, consumer, b"0", one, b"RETRYCOUNT", b"7", b"JUSTID"],
        [b"XCLAIM", key, group, consumer, b"0", one],
        [b"XAUTOCLAIM", key, group, consumer, b"0", b"0-0", b"COUNT", b"2"],
        [b"XAUTOCLAIM", key, group, consumer, b"3600000", b"0-0", b"COUNT", b"2"],
        [b"XGROUP", b"CREATE", key, group, b"0", b"MKSTREAM"],
        [b"EXISTS", key],
    ]
    rare: list[list[bytes | int]] = [
        [b"XTRIM", key, b"MINID", one],
        [b"XTRIM", key, b"MAXLEN", b"4"],
        [b"XGROUP", b"DESTROY", key, group],
        [b"DEL", key],
    ]
    return rng.choice(rare if rng.random() < 0.04 else choices)


def without_time(command: list[bytes | int], reply: Any) -> Any:
    """How long something has been idle differs."""
    if command[0] == b"XPENDING" and len(command) > 3 and isinstance(reply, list):
        return [[part for at, part in enumerate(each) if at != IDLE] for each in reply]
    return reply


@pytest.mark.parametrize("seed", range(6))
async def test_the_model_of_redis_answers_as_a_server(streams, seed):
    """Commands by a seed: each answer is the same, ids and times aside."""
    rng, both = random.Random(seed), Both(streams, f"{streams.keys.prefix}:model")
    for number in range(COMMANDS):
        # The youngest entries: what is older has been dealt with.
        asked = command(rng, both.key, len(both.ids))

        real, modelled = (without_time(asked, each) for each in await both.run(*asked))

        assert modelled == real, f"command {number}: {asked}"


async def test_other_keys_answer_as_a_server(streams):
    """Strings that expire, sets, hashes and sorted sets: everything that scripts use."""
    prefix = streams.keys.prefix.encode()
    both = Both(streams, "unused")
    s, h, z, m = (prefix + each for each in (b":s", b":h", b":z", b":m"))
    for asked in (
        [b"GET", s], [b"SET", s, b"1"], [b"PTTL", s], [b"GET", s], [b"PTTL", m], [b"EXISTS", s],
        [b"SET", s, b"2", b"PX", b"60000"], [b"GET", s], [b"SADD", m, b"x", b"y"],
        [b"SET", s, b"3", b"NX", b"GET", b"PX", b"9"], [b"SET", s, b"3", b"NX"], [b"GET", s],
        [b"DEL", s], [b"SET", s, b"4", b"NX", b"GET", b"PX", b"60000"], [b"GET", s],
        [b"SADD", m, b"x"], [b"HSET", h, b"a", b"1"], [b"HSET", h, b"a", b"2"], [b"HGET", h, b"a"],
        [b"MGET", s, h, b"none"], [b"HGET", h, b"b"], [b"HDEL", h, b"a", b"b"], [b"EXISTS", h],
        [b"ZADD", z, b"5", b"five"],
        [b"ZADD", z, b"1780000000123", b"later"], [b"ZADD", z, b"5", b"also"], [b"ZSCORE", z, b"x"],
        [b"ZSCORE", z, b"later"], [b"ZCARD", z], [b"ZCARD", m + b"none"],
        [b"ZRANGE", z, b"0", b"0", b"WITHSCORES"],
        [b"ZRANGEBYSCORE", z, b"-inf", b"6", b"LIMIT", b"0", b"1"],
        [b"ZREM", z, b"five", b"no"], [b"ZRANGEBYSCORE", z, b"-inf", b"6", b"LIMIT", b"0", b"9"],
        [b"DEL", s, z, b"none"], [b"EXISTS", z],
    ):  # fmt: skip
        real, modelled = await both.run(*asked)

        assert modelled == real, asked


@pytest.mark.parametrize("seed", range(4))
async def test_the_model_of_the_record_keeps_what_postgres_keeps(database, seed):
    """Batches of messages in a wild order, folded into both: the rows are the same."""
    rng, model = random.Random(seed), Rows()
    messages = _messages(rng)
    rng.shuffle(messages)
    while messages:
        batch = [messages.pop() for _ in range(min(len(messages), rng.randint(1, 6)))]
        known = {key: row for key, row in model.tasks.items() if rng.random() < KNOWN}
        folded = fold({key: replace(row) for key, row in known.items()}, batch)
        fresh = len(folded.tasks.keys() - model.tasks.keys())
        model.apply(folded)
        made = await _write(database, folded)

        assert made == fresh
        assert await _tasks(database) == _modelled_tasks(model)
    found = await _rows(database, "results", "task_id")
    assert {key: row["state"] for key, row in found.items()} == {
        key: row.state.value for key, row in model.results.items()
    }
    attempts = await _rows(database, "attempts", "task_id", "attempt")
    assert {key: row["state"] for key, row in attempts.items()} == {
        key: row.state for key, row in model.attempts.items()
    }
    audit = await _rows(database, "audit_events", "id")
    assert {key: row["action"] for key, row in audit.items()} == {
        key: row.action for key, row in model.audit.items()
    }


KNOWN = 0.7  # the probability that a row is seen; where not, another recorder has just made it
COLUMNS = ("state", "progress", "attempt", "crashes", "digest", "worker", "stream", "entry_id")


def _messages(rng: random.Random) -> list[SeenTask | HeardEvent]:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    found: list[SeenTask | HeardEvent] = []
    for n in range(6):
        task = Task(
            task_id=f"0198a5f2-0000-7000-8000-00000000000{n}", agent="triage", input={"n": n}
        )
        for attempt in (1, 2):
            told = task.model_copy(update={"attempt": attempt})
            entry = f"{n}{attempt}-0"
            found.append(
                SeenTask(
                    task=told, digest=told.digest, stream="tasks", entry_id=entry, at=now,
                    said_by="test",
                )
            )  # fmt: skip
            kinds = [EventKind.STARTED, EventKind.PROGRESS]
            kinds.append(EventKind.RETRYING if attempt == 1 else EventKind.SUCCEEDED)
            if rng.random() < KNOWN / 2:
                kinds.append(EventKind.FAILED)
            found += [
                HeardEvent(
                    event=TaskEvent(
                        task_id=task.task_id, agent="triage", event=kind, attempt=attempt,
                        at=now + timedelta(seconds=attempt), worker=f"w{attempt}",
                        run_at=now if kind is EventKind.RETRYING else None,
                    ),
                    stream="results", entry_id=f"{entry}{kind.value}", said_by="test", at=now,
                )
                for kind in kinds
            ]  # fmt: skip
    return found


async def _write(database: Database, writes: Writes) -> int:
    async with database.transaction() as connection:
        return await recording.write(connection, writes)


async def _rows(database: Database, table: str, *key: str) -> dict[Any, Any]:
    async with database.transaction() as connection:
        found = await connection.execute(text(f"SELECT * FROM {table}"))
        rows = [dict(row._mapping) for row in found]
    names = [tuple(str(row[name]) if name != "attempt" else row[name] for name in key)
             for row in rows]  # fmt: skip
    return {name if len(key) > 1 else name[0]: row for name, row in zip(names, rows, strict=True)}


async def _tasks(database: Database) -> dict[str, Any]:
    rows = await _rows(database, "tasks", "id")
    return {key: {name: row[name] for name in COLUMNS} for key, row in rows.items()}


def _modelled_tasks(rows: Rows) -> dict[str, Any]:
    return {key: {name: getattr(row, name) for name in COLUMNS} for key, row in rows.tasks.items()}
