"""One simulation: who takes part, what is asked of them, what breaks, and what must hold."""

import asyncio
import contextlib
import json
import logging
import random
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from orchestrator.errors import Overloaded, Unavailable
from orchestrator.settings import Settings
from orchestrator.streams.names import ORCHESTRATOR, RECORDER
from orchestrator.streams.neighbours import Seen
from orchestrator.task import TERMINAL, Task, TaskId
from tests.simulation.agents import Notes
from tests.simulation.cast import ModelNeighbours, live
from tests.simulation.postgres_model import Postgres
from tests.simulation.redis_model import EntryId, Fields, Group, StreamKey
from tests.simulation.redis_server import Link, RedisServer
from tests.simulation.virtual import Process, VirtualLoop

ENDS = frozenset(state.value for state in TERMINAL)
RESTART = 0.3  # seconds until a dead process is started again
TOGETHER = 0.5  # the probability that all run on one machine, and see there who has ended


class Owner(NamedTuple):
    """A worker that was handed an attempt."""

    task_id: TaskId
    attempt: int
    worker: str


@dataclass
class Ledger:
    """What was asked for, and what the one who asked was told."""

    asked: dict[TaskId, Task] = field(default_factory=dict)
    accepted: dict[TaskId, float] = field(default_factory=dict)
    cancelled: set[TaskId] = field(default_factory=set)


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, settings: Settings, loop: VirtualLoop) -> None:
        self.settings = settings
        self.rng = random.Random(f"{seed}:faults")
        self.loop = loop
        self.redis = RedisServer(loop, random.Random(f"{seed}:redis"))
        self.postgres = Postgres(loop, random.Random(f"{seed}:postgres"))
        self.notes = Notes()
        self.ledger = Ledger()
        self.processes: dict[str, Process] = {}  # by the place they have
        self.everybody: list[Process] = []
        self.log: list[str] = []  # what happened, for a failing seed's reader
        self.wrong: list[str] = []  # what broke a promise in the very moment
        self.backwards = 0.0  # seconds that Redis' clock has gone back
        together = random.Random(f"{seed}:machine").random() < TOGETHER
        self._neighbours = ModelNeighbours(self._look) if together else None
        self._foreign = False
        self.twice: set[TaskId] = set()  # somebody else published them again
        # Of the starts so many, and of attempts that were handed out and had not begun these.
        self._forgotten: tuple[int, frozenset[Owner]] = (0, frozenset())
        self._names = 0
        self._keeping: set[asyncio.Task[Any]] = set()
        loop.set_exception_handler(self._broken)
        self.redis.redis.on_acknowledge = self._acknowledged
        self.redis.redis.on_add = self._added
        self.redis.redis.on_delete = self._deleted

    def say(self, what: str) -> None:
        """Note something."""
        self.log.append(f"{self.loop.time():9.3f}  {what}")

    def start(self, place: str) -> None:
        """Keep a process in this place: `worker-0` is a worker."""
        role = place.partition("-")[0]
        self._names += 1
        process = Process(f"{place}.{self._names}")
        self.processes[place] = process
        self.everybody.append(process)
        task = process.run(live(process, role, self.settings, self.postgres, self._neighbours))
        self._keeping.add(task)

    def _look(self) -> Seen:
        workers = sum(place.startswith("worker") for place in self.processes)
        return Seen(tuple(each.name for each in self.everybody if each.dead), workers)

    async def supervise(self) -> None:
        """What has died, or ended, is started again."""
        while True:
            await asyncio.sleep(RESTART)
            for place, process in list(self.processes.items()):
                if process.dead:
                    self.start(place)
            for task in [each for each in self._keeping if each.done()]:
                self._keeping.discard(task)
                error = task.exception()
                self.say(f"{task.get_name()} ended: {error!r}")
                for process in self.processes.values():
                    if process.name == task.get_name() and not process.dead:
                        process.kill()

    def links(self) -> list[Link]:
        """Every connection to Redis."""
        return sorted(self.redis.links, key=lambda each: each.number)

    def streams(self) -> Iterator[tuple[str, StreamKey]]:
        """Every stream by name."""
        for key, value in sorted(self.redis.redis.keys.items()):
            if isinstance(value, StreamKey):
                yield key.decode(), value

    def number(self, task_id: TaskId) -> int | str:
        """What the log calls a task; one that nobody of ours asked for, by its id."""
        asked = list(self.ledger.asked)
        return asked.index(task_id) if task_id in asked else task_id

    @contextlib.contextmanager
    def foreign(self) -> Iterator[None]:
        """What is done to Redis in here is not ours."""
        self._foreign = True
        try:
            yield
        finally:
            self._foreign = False

    def forget(self) -> None:
        """Redis is about to lose who owns what: who owned something before owns it no less."""
        self._forgotten = (len(self.notes.starts), frozenset(self._owners()))

    def heal(self) -> None:
        """No more faults, and no more ticks."""
        self.say("no more faults")
        for place in [each for each in self.processes if each.startswith("scheduler")]:
            self.processes.pop(place).kill()
        self.redis.trouble.clear()
        self.redis.start()
        self.postgres.start()
        for process in self.processes.values():
            if process.paused:
                process.go_on()

    async def healed(self, *, until: float) -> None:
        """Wait until everything has ended, or for so long."""
        while self.loop.time() < until:
            if self._all_ended():
                return
            await asyncio.sleep(0.1)

    def _all_ended(self) -> bool:
        """Everything accepted has an end in the record, and whatever else has a row."""
        rows = self.postgres.rows
        return set(self.ledger.accepted) <= set(rows.tasks) and all(
            row.state.is_terminal for row in rows.tasks.values()
        )

    def end(self) -> None:
        """Nobody runs any more; what is left cleans up in nobody's sight."""
        self.redis.up = self.postgres.up = False
        for link in self.links():
            link.vanish()
        for process in self.everybody:
            process.end()

    def _broken(self, _: asyncio.AbstractEventLoop, about: dict[str, Any]) -> None:
        error = about.get("exception")
        if error is not None and not isinstance(error, Unavailable | Overloaded | RedisError):
            self.wrong.append(f"{about['message']}: {error!r}")

    def _acknowledged(
        self, stream: bytes, group: bytes, entry: EntryId, fields: Fields | None
    ) -> None:
        """P4: the recorder acknowledges what is committed, never anything else."""
        ours = group == RECORDER.encode() and fields is not None
        if ours and not self._is_recorded(fields):
            self.wrong.append(f"{entry} of {stream.decode()} acknowledged before its commit")

    def _deleted(self, stream: bytes, entry: EntryId) -> None:
        """P3: nothing of ours removes what a required group has not acknowledged."""
        name, key = stream.decode(), self.redis.redis.keys[stream]
        if self._foreign or "agent" not in name:
            return
        required = {RECORDER} if name.endswith("results") else {ORCHESTRATOR, RECORDER}
        if self._is_recorded(key.entries[entry]):
            required.remove(RECORDER)  # it says so for a group that somebody has destroyed since
        for each in sorted(required):
            group = key.groups.get(each.encode())
            if group is None or entry > group.last or entry in group.pending:
                self.wrong.append(f"{entry} of {name} deleted before {each} had acknowledged it")

    def _added(self, stream: bytes, fields: Fields) -> None:
        """P2: nobody speaks for a task of which a later attempt has begun, as far as Redis knows.

        Unless somebody else published it twice: who owns one of its entries may speak.
        """
        if self._foreign or not stream.endswith(b"results"):
            return
        said = data_of(fields)
        task_id, attempt, worker = said["task_id"], said.get("attempt", 1), said.get("worker")
        count, handed_out = self._forgotten
        later = [
            each.attempt for each in self.notes.starts[count:]
            if each.task_id == task_id and each.attempt > attempt
            and Owner(task_id, each.attempt, each.process) not in handed_out
        ]  # fmt: skip
        ours = Owner(task_id, attempt, worker)
        owns_another = task_id in self.twice and ours in self._owners()
        if worker and later and not owns_another:
            self.wrong.append(
                f"task {self.number(task_id)}: {said['event']} of attempt"
                f" {attempt} while attempt {max(later)} runs"
            )

    def _owners(self) -> Iterator["Owner"]:
        """Who owns what by what Redis knows now."""
        for name, key in self.streams():
            if "agent" not in name or name.endswith("results"):
                continue
            group = key.groups.get(ORCHESTRATOR.encode(), Group((0, 0)))
            for entry, pending in group.pending.items():
                if fields := key.entries.get(entry):
                    data = data_of(fields)
                    attempt = data.get("attempt", 1) + pending.times - 1
                    yield Owner(data["task_id"], attempt, pending.consumer.decode())

    def _is_recorded(self, fields: Fields) -> bool:
        """What an entry says is committed."""
        data = data_of(fields)
        rows = self.postgres.rows
        return data["task_id"] in (rows.results if data.get("event") in ENDS else rows.tasks)


def data_of(fields: Fields) -> dict[str, Any]:
    """What an entry says."""
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return {"task_id": named[b"id"].decode(), **json.loads(named[b"data"])}


class Surprises(logging.Handler):
    """What the code itself did not expect: a traceback in the log is wrong."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Note it."""
        self._world.say(f"{record.name}: {record.getMessage()}")
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._world.wrong.append(f"{record.name}: {error!r} at {where.filename}:{where.lineno}")
