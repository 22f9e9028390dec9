"""Submits at the pace of the faults, so that each of them meets tasks under way."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from orchestrator.agent import Agent
from orchestrator.errors import OrchestratorError
from orchestrator.task import Durability, Task
from tests.faults.agents import Done, Job
from tests.faults.ground import Ground
from tests.faults.ledger import Ledger

DELAY = 2.0  # seconds, at most
LONG_SHARE = 0.15  # of the tasks run long enough to be met by a fault for certain


class Load:
    """`total` good tasks over `faults` faults of about `pause` seconds."""

    def __init__(
        self,
        ground: Ground,
        ledger: Ledger,
        rng: Random,
        *,
        total: int,
        faults: int,
        pause: float,
        durabilities: tuple[Durability, ...],
        asks_again: bool = False,
        longest: float = 1.0,
        delayed: float = 0.0,
        agents: tuple[type[Agent[Job, Done]], ...],
        batch: int,
    ) -> None:
        self._ground = ground
        self._ledger = ledger
        self._rng = rng
        self._faults = faults
        self._pause = pause
        self._durabilities = durabilities
        self._asks_again = asks_again
        self._longest = longest
        self._delayed = delayed
        self._agents = agents
        self._batch = batch
        self._n = 0
        self._done = 0
        self._since = time.monotonic()
        self.total = total
        self.accepted = 0
        self.refused = 0

    def fault_done(self) -> None:
        """Another fault is over: the next share may come."""
        self._done += 1
        self._since = time.monotonic()

    @property
    def progress(self) -> float:
        """How far the faults have come: 0 to 1."""
        return self._done / self._faults

    async def calm(self, seconds: float) -> None:
        """Submit at the same pace for so long, before the first fault and beyond `total`."""
        wanted, done = self.total / (self._faults * self._pause) * seconds, 0
        began = time.monotonic()
        while (gone := time.monotonic() - began) < seconds:
            missing = int(wanted * gone / seconds) - done
            if missing > 0 and await self._submit([self._task() for _ in range(missing)]):
                done += missing
            await asyncio.sleep(0.01)

    async def run(self) -> None:
        """Submit until `total` are accepted."""
        self._since = time.monotonic()
        while self.accepted < self.total:
            missing = min(self._due(), self.total) - self.accepted
            if missing <= 0:
                await asyncio.sleep(0.01)
                continue
            count = min(missing, self._rng.randint(1, self._batch))
            tasks = self._tasks(count)
            while (accepted := await self._submit(tasks)) < count:
                self.refused += count - accepted
                await asyncio.sleep(0.05)
                if not self._asks_again:
                    break
            self.accepted += accepted

    async def more(self, count: int) -> None:
        """Submit some beyond `total`, for a fault that waits for tasks to meet."""
        await self._submit(self._tasks(count))

    async def unpublished(self, count: int) -> None:
        """Rows without a message, as a submitter leaves them that dies after its commit."""
        tasks = self._tasks(count)
        self._ledger.ask(tasks)
        with contextlib.suppress(OrchestratorError):
            await self._ground.parts.store.accept(tasks, actor="faults")
            self._ledger.accept(tasks)

    async def poison(self, agent: type[Agent[Job, Done]]) -> None:
        """Put one of these among the others."""
        while not await self._submit([self._make(agent, 0.0)]):  # noqa: ASYNC110 - asks again
            await asyncio.sleep(0.05)

    def adopt(self, tasks: Sequence[Task]) -> None:
        """Demand of these what is demanded of our own: others have accepted them durably."""
        self._ledger.ask(tasks)
        self._ledger.accept(tasks)

    def _due(self) -> int:
        within = min(1.0, (time.monotonic() - self._since) / self._pause)
        return int(self.total * min(1.0, (self._done + within) / self._faults))

    def _tasks(self, count: int) -> list[Task]:
        return [self._task() for _ in range(count)]

    def _task(self) -> Task:
        longest = self._longest if self._rng.random() < LONG_SHARE else 0.05
        task = self._make(self._rng.choice(self._agents), self._rng.uniform(0, longest))
        if self._delayed and self._rng.random() < self._delayed:
            later = datetime.now(UTC) + timedelta(seconds=self._rng.uniform(0, DELAY))
            return task.model_copy(update={"run_at": later})
        return task

    def _make(self, agent: type[Agent[Job, Done]], seconds: float) -> Task:
        self._n += 1
        return agent.task(Job(n=self._n, seconds=seconds))

    async def _submit(self, tasks: list[Task]) -> int:
        """How many of them were accepted."""
        self._ledger.ask(tasks)
        durability = self._rng.choice(self._durabilities)
        try:
            await self._ground.parts.submitter.submit_many(tasks, durability=durability)
        except OrchestratorError:
            return 0  # refused or unknown: promised is nothing
        self._ledger.accept(tasks)
        return len(tasks)
