"""The record as far as its keepers use it: rows, their locks, and commits that may fail or be lost.

What stands between a caller and its rows (folding, deciding) is the real code; this only keeps
what SQL would keep. `tests/simulation/test_models.py` holds it against a real server.
"""

import asyncio
import copy
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.db.reconciling import MADE_UP
from orchestrator.db.recording import ASKED_FOR, PROGRESS, SEEN
from orchestrator.db.ticks import Schedule, Tick
from orchestrator.errors import Unavailable
from orchestrator.record import AttemptRecord, AuditEntry, ResultRecord, TaskRecord, Writes
from orchestrator.task import TaskId, TaskState
from tests.simulation.virtual import CURRENT, NOBODY, START, VirtualLoop

LOCK_TIMEOUT = 10.0  # seconds, as in db/session.py


@dataclass
class Rows:
    """Everything that is committed."""

    tasks: dict[TaskId, TaskRecord] = field(default_factory=dict)
    attempts: dict[tuple[TaskId, int], AttemptRecord] = field(default_factory=dict)
    results: dict[TaskId, ResultRecord] = field(default_factory=dict)
    dead_letters: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, AuditEntry] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    ticks: dict[tuple[str, datetime], Tick] = field(default_factory=dict)
    cancels: dict[TaskId, tuple[datetime, str]] = field(default_factory=dict)

    def apply(self, writes: Writes) -> None:
        """As the statements of db/recording.py do."""
        for task_id, row in writes.tasks.items():
            standing = self.tasks.get(task_id)
            if standing is None:
                self.tasks[task_id] = copy.copy(row)
            else:
                _upsert(standing, row)
        for task_id, result in writes.results.items():
            self.results.setdefault(task_id, result)
        for key, attempt in writes.attempts.items():
            open_one = self.attempts.get(key)
            if open_one is None or open_one.state == "running":
                self.attempts[key] = attempt
        for letter in writes.dead_letters:
            self.dead_letters.setdefault(letter.id, letter)
        for entry in writes.audit:
            self.audit.setdefault(entry.id, entry)


def _upsert(standing: TaskRecord, new: TaskRecord) -> None:
    if standing.digest is None:
        for name in ASKED_FOR:
            setattr(standing, name, getattr(new, name))
    later = new.progress > standing.progress or (
        new.progress == standing.progress and new.state == standing.state
    )
    if later:
        for name in PROGRESS:
            setattr(standing, name, getattr(new, name))
    for name in SEEN:
        if (value := getattr(new, name)) is not None:
            setattr(standing, name, value)
    standing.traceparent = standing.traceparent or new.traceparent


class Postgres:
    """One server. Callers see `transaction`; the faults turn the rest."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.rows = Rows()
        self.skew = 0.0
        self.up = True
        self.locks_schedules = rng.random() < 0.5
        self.slow = 0.0  # seconds more, at most
        self.fail = 0.0  # the probability that a transaction ends without its commit
        self.lose_answers = 0.0  # that it is committed and nobody hears of it
        self._locks: dict[Any, Transaction] = {}
        self._open: set[Transaction] = set()

    def now(self) -> datetime:
        """By the server's clock."""
        return datetime.fromtimestamp(START + self.loop.time() + self.skew, UTC)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Transaction"]:
        """As `Database.transaction`."""
        tx = Transaction(self)
        await tx.begin()
        try:
            yield tx
        except BaseException:
            tx.end()
            raise
        await tx.commit()

    async def ping(self) -> None:
        """As `Database.ping`."""
        async with self.transaction():
            pass

    async def close(self) -> None:
        """Nothing to close."""

    def crash(self) -> None:
        """Every open transaction is rolled back; what is committed stays."""
        self.up = False
        for tx in list(self._open):
            tx.break_off()

    def start(self) -> None:
        """Answer again."""
        self.up = True

    def pause(self) -> float:
        """Seconds that the next thing takes."""
        return self.rng.uniform(0.0002, 0.003) + self.rng.uniform(0, self.slow)


class Transaction:
    """What one caller does between its BEGIN and its COMMIT."""

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.writes = Writes()
        self.also: list[Callable[[Rows], None]] = []
        self.locked: list[Any] = []
        self.released = asyncio.Event()
        self.now = server.now()  # the transaction's, as `now()` in SQL
        self._broken = False
        self._committing = False

    async def begin(self) -> None:
        """Raises Unavailable."""
        await asyncio.sleep(self.server.pause())
        if not self.server.up:
            raise Unavailable("Postgres", "connection refused")
        self.server._open.add(self)
        if (process := CURRENT.get()) is not None:
            process.on_death.append(self.break_off)

    async def lock(self, keys: Iterable[Any], *, skip: bool = False) -> list[Any]:
        """Row locks until the end; those had. `skip`: SKIP LOCKED. Raises Unavailable."""
        had = []
        for key in sorted(keys):
            while (holder := self.server._locks.get(key)) not in (None, self):
                if skip:
                    break
                try:
                    await asyncio.wait_for(holder.released.wait(), LOCK_TIMEOUT)
                except TimeoutError:
                    raise Unavailable("Postgres", "lock timeout") from None
                self._check()
            else:
                self.server._locks[key] = self
                self.locked.append(key)
                had.append(key)
        return had

    async def rollback(self) -> None:
        """Nothing of it is kept."""
        self.writes, self.also = Writes(), []

    async def statement(self) -> None:
        """The time of one, in which the connection may break. Raises Unavailable."""
        await asyncio.sleep(self.server.pause())
        self._check()

    async def execute(self, _: Any, values: dict[str, Any]) -> None:
        """The one statement that is not behind a name: `ticks._ADVANCE`."""
        from tests.simulation.postgres_schedules import advance

        await advance(self, values)

    async def commit(self) -> None:
        """Raises Unavailable, also where it was committed and the answer got lost."""
        await self.statement()
        server, loop = self.server, self.server.loop
        if server.rng.random() < server.fail:
            self.end()
            raise Unavailable("Postgres", "the connection broke before the commit")
        answer: asyncio.Future[None] = loop.create_future()
        self._committing = True
        # On its way: it is done whatever becomes of the caller, unless the server dies first.
        loop.call_later(server.pause(), self._do_commit, answer, context=NOBODY)
        await answer
        await asyncio.sleep(0)
        if server.rng.random() < server.lose_answers:
            raise Unavailable("Postgres", "the connection broke after the commit")

    def _do_commit(self, answer: "asyncio.Future[None]") -> None:
        if self._broken:
            if not answer.done():
                answer.set_exception(Unavailable("Postgres", "the server went away"))
            return
        self.server.rows.apply(self.writes)
        for change in self.also:
            change(self.server.rows)
        self.end()
        if not answer.done():
            answer.set_result(None)

    def break_off(self) -> None:
        """The connection is gone; a commit on its way is done, unless the server is gone."""
        if self._committing and self.server.up:
            return
        self._broken = True
        self.end()

    def end(self) -> None:
        """Release the locks."""
        self.server._open.discard(self)
        for key in self.locked:
            if self.server._locks.get(key) is self:
                del self.server._locks[key]
        self.locked.clear()
        self.released.set()

    def _check(self) -> None:
        if self._broken:
            raise Unavailable("Postgres", "the connection broke")


# What replaces the statements of orchestrator.db -------------------------------------------------


async def lock_known(tx: Transaction, task_ids: Sequence[TaskId]) -> dict[TaskId, TaskRecord]:
    """As `recording.lock_known`."""
    await tx.statement()
    rows = tx.server.rows.tasks
    await tx.lock([each for each in task_ids if each in rows])
    return {each: copy.copy(rows[each]) for each in task_ids if each in rows}


async def write(tx: Transaction, writes: Writes) -> int:
    """As `recording.write`: waits for whoever is inserting one of the rows, too."""
    await tx.statement()
    await tx.lock(writes.tasks)
    made = sum(each not in tx.server.rows.tasks for each in writes.tasks)
    tx.writes = copy.copy(writes)
    tx.writes.tasks = {key: copy.copy(row) for key, row in writes.tasks.items()}
    return made


def count_audit(rows: Rows, task_id: TaskId) -> Counter[str]:
    """How often each action is told of a task; a first `task.queued` or `.scheduled` as "first"."""
    return Counter(
        "first" if entry.action in ("task.queued", "task.scheduled") and entry.before is None
        else entry.action
        for entry in rows.audit.values()
        if entry.object_id == task_id
    )  # fmt: skip


def old_enough(created_at: datetime, now: datetime, age: timedelta) -> bool:
    """As `reconciling._is_old`."""
    return created_at < now - age or created_at > now + MADE_UP


def is_open(row: TaskRecord) -> bool:
    """The partial index's condition."""
    return not TaskState(row.state).is_terminal
