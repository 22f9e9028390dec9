"""A storm of alerts, each of them twice, and handlers that die in it: few stories, all complete."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

from redis.exceptions import ResponseError

from orchestrator.streams.names import ALERT_HANDLER, ALERTS
from orchestrator.task import TaskId
from tests.faults.agents import OneSource
from tests.faults.figures import spread
from tests.faults.ground import LEASE, Slot
from tests.faults.hostile import new_id
from tests.faults.scenario import Noticed, Scenario, Scene, Told
from tests.faults.settled import settled
from tests.support import wait_until

ALERTS_IN_ALL, KEYS, SECONDS = 10_000, 50, 60.0
CALM = 30.0  # seconds of the storm without a fault
CRITICAL_EVERY = 500  # alerts; each of another address
SOON = 2.0  # seconds until a critical one has started, when nobody dies
AGAIN = 500  # alerts behind, at most, is the second copy
HANDLERS = 2

STORIES = """SELECT i.key, i.alerts, i.severity, cardinality(i.task_ids) AS tasks,
(SELECT count(*) FROM investigation_alerts m WHERE m.investigation_id = i.id) AS members
FROM investigations i"""
MEMBERS = """SELECT m.alert_id::text AS id, i.key FROM investigation_alerts m
JOIN investigations i ON i.id = m.investigation_id"""
STARTED = """SELECT metadata ->> 'alert_id' AS alert, id::text AS task FROM tasks
WHERE metadata ->> 'rule' = :rule"""


class AlertStorm(Scenario):
    name = "alert-storm"
    breaks = (
        f"{ALERTS_IN_ALL} alerts over {KEYS} keys in {SECONDS:.0f} s, each twice;"
        f" SIGKILL of one of {HANDLERS} handlers in the second half"
    )
    guards = ("an alert that comes again is counted again",)
    tasks = 0  # rules make them
    faults = 8
    pause = (1.0, 3.0)
    workers = 2

    async def prepare(self, scene: Scene) -> None:
        """Start the handlers."""
        self.sent: dict[str, str] = {}  # alert id -> key
        self.critical: dict[str, float] = {}  # alert id -> when its first copy was written
        self.handlers: list[Slot] = [await scene.ground.add("alerts") for _ in range(HANDLERS)]
        await wait_until(partial(_read, scene), what="the handlers read", timeout=60)
        self.began = time.time()

    async def inject(self, scene: Scene) -> None:
        """Kill one, once the calm half is over."""
        await asyncio.sleep(max(0.0, self.began + CALM + 1.0 - time.time()))
        scene.ground.kill(scene.rng.choice(self.handlers))

    @contextlib.asynccontextmanager
    async def beside(self, scene: Scene) -> AsyncIterator[Noticed]:
        """Write the storm, however long the faults take."""
        storm = asyncio.create_task(self._storm(scene))
        yield Noticed()
        await storm

    async def _storm(self, scene: Scene) -> None:
        waiting: list[dict[str, Any]] = []
        for n in range(ALERTS_IN_ALL):
            one = _alert(n, scene)
            self.sent[one["id"]] = one["src_ip"]
            if one["severity"] == "critical":
                self.critical[one["id"]] = time.time()
            waiting.append(one)
            copies = [one]
            if len(waiting) > AGAIN:
                copies.append(waiting.pop(scene.rng.randrange(AGAIN)))
            await _write(scene, copies)
            await asyncio.sleep(max(0.0, self.began + SECONDS * n / ALERTS_IN_ALL - time.time()))
        await _write(scene, waiting)

    async def settle(self, scene: Scene) -> None:
        """Until the handlers have dealt with all, and what gathered has run."""
        self.left = await settled(scene.ground)
        await asyncio.sleep(OneSource.gather.total_seconds())
        self.left += await settled(scene.ground)

    async def strangers(self, scene: Scene) -> frozenset[TaskId]:
        """All of them: nobody submitted any."""
        return frozenset(row.task for row in await scene.ground.rows(STARTED, rule=OneSource.name))

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        """Each alert in the one story of its key, two tasks a story, and critical ones in time."""
        self.stories = await scene.ground.rows(STORIES)
        members = {row.id: row.key for row in await scene.ground.rows(MEMBERS)}
        self.latencies = await self._latencies(scene)
        late = [
            f"{alert} after {seconds:.2f} s" for alert, seconds in self.latencies.items()
            if seconds > SOON and self.critical[alert] < self.began + CALM
        ]  # fmt: skip
        first = {self.sent[each]: each for each in reversed(self.critical)}
        return {
            "left on the streams": self.left,
            "more investigations than keys": [row.key for row in self.stories[KEYS:]],
            "alerts in no story or in another's": [
                each for each, key in self.sent.items() if members.get(each) != key
            ],
            "stories with another number of alerts": [
                f"{row.key}: {row.alerts}, {row.members} members" for row in self.stories
                if not row.alerts == row.members == list(self.sent.values()).count(row.key)
            ],
            "stories with another number of tasks": [
                f"{row.key}: {row.tasks}" for row in self.stories if not 1 <= row.tasks <= 2
            ],
            "critical alerts that nobody looked at": [
                each for each in first.values() if each not in self.latencies
            ],
            "critical alerts late with nobody dying": late,
        }  # fmt: skip

    async def _latencies(self, scene: Scene) -> dict[str, float]:
        """Seconds from the first writing of a critical alert to the start of its task."""
        starts: dict[str, float] = {}
        for line in scene.ground.notes.read_text().splitlines():
            start = json.loads(line)
            starts.setdefault(start["id"], start["at"])
        return {
            row.alert: starts[row.task] - self.critical[row.alert]
            for row in await scene.ground.rows(STARTED, rule=OneSource.name)
            if row.alert in self.critical and row.task in starts
        }

    async def told(self, scene: Scene) -> Told:
        """The goal's figures."""
        del scene
        calm = [
            seconds for alert, seconds in self.latencies.items()
            if self.critical[alert] < self.began + CALM
        ]  # fmt: skip
        return {
            "alerts": len(self.sent),
            "investigations": len(self.stories),
            "members": sum(row.members for row in self.stories),
            "tasks of a story, at most": max(row.tasks for row in self.stories),
            "seconds to a critical start": spread(calm),
            f"the same while handlers die (lease {LEASE:.0f} s)": spread(
                [each for each in self.latencies.values() if each not in calm]
            ),
        }


def _alert(n: int, scene: Scene) -> dict[str, Any]:
    critical = n % CRITICAL_EVERY == CRITICAL_EVERY // 2
    key = (n // CRITICAL_EVERY) % KEYS if critical else scene.rng.randrange(KEYS)
    return {
        "id": new_id(scene.rng), "signature": "storm", "src_ip": f"198.51.100.{key}",
        "severity": "critical" if critical else scene.rng.choice(("low", "medium", "high")),
        "occurred_at": "2026-01-05T10:00:00Z",
    }  # fmt: skip


async def _write(scene: Scene, alerts: list[dict[str, Any]]) -> None:
    streams = scene.ground.parts.streams
    pipe = streams.commands.pipeline(transaction=False)
    for each in alerts:
        pipe.xadd(streams.keys.of(ALERTS), {"id": each["id"], "data": json.dumps(each)})
    await pipe.execute()


async def _read(scene: Scene) -> bool:
    streams = scene.ground.parts.streams
    try:
        found = await streams.commands.xinfo_consumers(streams.keys.of(ALERTS), ALERT_HANDLER)
    except ResponseError:
        return False
    return len(found) >= HANDLERS
