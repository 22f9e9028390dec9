"""Tasks that end or seize the process they run in; and what that costs the others."""

import asyncio
import time
from dataclasses import dataclass

from tests.faults.poisons import ALONE, IN_WORKER, POISONS, TOLD, Fork, ForkAlone
from tests.faults.scenario import Scenario, Scene

BASE = 20.0  # seconds of the same load without any poison
CLEAR = 60.0  # seconds in which the poisons of one kind must have ended before the other kind


@dataclass
class Window:
    """A while, by time.time(), and how long the good tasks took that were submitted in it."""

    name: str
    begun: float
    ended: float = 0.0


class Poison(Scenario):
    name = "poison"
    breaks = "tasks that abort, exit, hang, fork, close or kill everything: alone, then in workers"
    guards = ("a suspect among the others", "a forked worker goes on")
    tasks = 1_000
    faults = 40
    pause = (1.0, 3.0)
    workers = 4
    # A worker hangs for two seconds before it gives up, and for what a fork holds its lease runs
    # out; each later start is an interpreter of its own, and so is a neighbour's who met two
    # deaths.
    patience = 30.0

    async def prepare(self, scene: Scene) -> None:
        """The same load, with nothing among it: what the others are compared with."""
        self.left: list[type[object]] = []
        self.windows = [Window("without", time.time())]
        await scene.load.calm(BASE)
        self._next("alone")

    async def inject(self, scene: Scene) -> None:
        """One of a kind, each in turn: those alone in the first half."""
        late = scene.load.progress >= 1 / 2
        if late and len(self.windows) == 2:
            await self._cleared(scene)
            self._next("in workers")
            self.left = []
        kinds = (*IN_WORKER, Fork) if late else (*ALONE, ForkAlone)
        if not self.left:
            self.left = scene.rng.sample(kinds, len(kinds))
        await scene.load.poison(self.left.pop())

    async def wrong(self, scene: Scene) -> dict[str, list[str]]:
        """Each came to the end of its own kind: its error, or a dead letter."""
        kinds = {each.name: "failed" if issubclass(each, TOLD) else "dead" for each in POISONS}
        rows = await scene.ground.rows(ENDED)
        return {
            "another end than its kind's": [
                f"{row.id} {row.agent} {row.state} {row.error}" for row in rows
                if row.state != kinds.get(row.agent, row.state)
            ],
        }  # fmt: skip

    async def told(self, scene: Scene) -> dict[str, float]:
        """p50 and p99 in seconds, from the submission to the recorded end, of the good tasks."""
        self.windows[-1].ended = time.time()
        rows = await scene.ground.rows(TOOK)
        told: dict[str, float] = {}
        base = 0.0
        for window in self.windows:
            took = [row.took for row in rows if window.begun <= row.at < window.ended]
            waited = [row.took - row.own for row in rows if window.begun <= row.at < window.ended]
            base = base or _share(took, 0.99)
            told |= {
                f"{window.name}: good tasks": len(took),
                f"{window.name}: p50": _share(took, 0.5),
                f"{window.name}: p99": _share(took, 0.99),
                f"{window.name}: p99 of waiting": _share(waited, 0.99),
                f"{window.name}: p99 / base": round(_share(took, 0.99) / base, 2),
                f"{window.name}: more than 2 x base": sum(each > 2 * base for each in took),
            }
        return told

    def _next(self, name: str) -> None:
        self.windows[-1].ended = self.windows[-1].ended or time.time()
        self.windows.append(Window(name, time.time()))

    async def _cleared(self, scene: Scene) -> None:
        self.windows[-1].ended = time.time()
        deadline = time.monotonic() + CLEAR
        while await scene.ground.rows(OPEN) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


TOOK = """SELECT extract(epoch FROM tasks.created_at)::float AS at,
extract(epoch FROM recorded_at - tasks.created_at)::float AS took,
(tasks.input->>'seconds')::float AS own
FROM tasks JOIN results ON results.task_id = tasks.id WHERE tasks.agent IN ('short', 'steps')"""
ENDED = """SELECT tasks.id::text AS id, tasks.agent, tasks.state, left(error::text, 300) AS error
FROM tasks LEFT JOIN results ON results.task_id = tasks.id"""
OPEN = """SELECT 1 FROM tasks WHERE agent NOT IN ('short', 'steps')
AND state NOT IN ('succeeded', 'failed', 'dead') LIMIT 1"""


def _share(found: list[float], share: float) -> float:
    return round(sorted(found)[int(len(found) * share)], 2) if found else 0.0
