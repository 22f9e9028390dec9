"""Five schedulers that die at ticks, and the ticks that there should have been."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from orchestrator.cron import CatchUp, Overlap, crontab
from orchestrator.db.schedules import ScheduleStore
from orchestrator.task import Task
from tests.faults.agents import Short
from tests.faults.figures import spread
from tests.faults.ground import Slot
from tests.faults.orders import next_point, strike
from tests.faults.points import SCHEDULER
from tests.faults.scenario import Scenario, Scene, Told
from tests.support import wait_until

STANDSTILLS = 0.06  # of the faults stop all of them for long enough that ticks are missed
STANDSTILL = (6.0, 8.0)  # seconds; on time is what is less than 5 s late
AT_POINTS = 0.6
CALM = 4.0  # seconds after the last fault, for those that were killed to start and catch up
UNDECIDED = timedelta(seconds=3)  # before the end, nobody may have looked yet


@dataclass(frozen=True)
class Kind:
    """Schedules of one line, with what it means: the seconds of a minute at which it is due."""

    copies: int
    line: str
    due: range | tuple[int, ...]
    seconds: float = 0.0  # that a task takes
    overlap: Overlap = Overlap.ALLOW
    catchup: CatchUp = CatchUp.ALL
    timezone: str = "UTC"


EVERY = range(60)
KINDS = (  # 26 ticks a second
    Kind(12, "* * * * * *", EVERY),
    Kind(4, "* * * * * *", EVERY, catchup=CatchUp.NONE, timezone="Asia/Kathmandu"),
    Kind(3, "* * * * * *", EVERY, 1.5, Overlap.SKIP, CatchUp.LATEST),
    Kind(3, "* * * * * *", EVERY, 1.5, Overlap.QUEUE),
    Kind(4, "*/2 * * * * *", range(0, 60, 2), catchup=CatchUp.LATEST),
    Kind(3, "7-37/3,58,59 * * * * *", (*range(7, 38, 3), 58, 59), timezone="America/Caracas"),
    Kind(6, "1-59/4 * * * * *", range(1, 60, 4), overlap=Overlap.QUEUE, catchup=CatchUp.LATEST),
)

SCHEDULES = """SELECT s.id::text AS id, s.name, s.decided_until, s.paused_at, s.overlap,
(SELECT min(at) FROM audit_events WHERE object_id = s.id::text) AS began FROM schedules s"""
TICKS = """SELECT k.schedule_id::text AS schedule, k.fire_at, k.outcome, k.reason, k.decided_by,
extract(epoch FROM k.decided_at - k.fire_at) AS late, k.task_id::text AS task_id,
(SELECT count(*) FROM tasks t WHERE t.id = k.task_id) AS tasks FROM schedule_ticks k"""
FIRED = """SELECT k.task_id::text AS id, s.agent, s.input FROM schedule_ticks k
JOIN schedules s ON s.id = k.schedule_id WHERE k.outcome = 'fired'"""
TASKS = """SELECT metadata ->> 'schedule_id' AS schedule,
(metadata ->> 'fire_at')::timestamptz AS fire_at FROM tasks"""
SAID = """SELECT object_id AS schedule, (detail ->> 'fire_at')::timestamptz AS fire_at
FROM audit_events WHERE action = 'schedule.fired'"""


class Schedulers(Scenario):
    name = "schedulers"
    breaks = "SIGKILL of one of five schedulers, at random and at its ticks; now and then all stop"
    guards = ("a tick belongs to nobody", "a tick without its task")
    tasks = 0  # the schedulers submit
    faults = 40
    pause = (1.0, 3.0)
    workers = 2
    schedulers = 5

    def __init__(self) -> None:
        self._stood: list[tuple[float, float]] = []  # when nobody could have been in time

    async def prepare(self, scene: Scene) -> None:
        self._stood.clear()
        for slot in scene.ground.schedulers:
            await wait_until(partial(_looks, slot), what="the schedulers look", timeout=60)
        store = ScheduleStore(scene.ground.parts.database)
        for number, kind in enumerate(each for each in KINDS for _ in range(each.copies)):
            line = crontab(
                kind.line, name=f"{KINDS.index(kind)}-{number}", timezone=kind.timezone,
                input={"n": number, "seconds": kind.seconds},
                overlap=kind.overlap, catchup=kind.catchup,
            )  # fmt: skip
            await store.create(Short.name, line, actor="faults")

    async def inject(self, scene: Scene) -> None:
        kind = scene.rng.random()
        if kind < STANDSTILLS:
            self._stood.append(await _stand_still(scene))
        elif kind < STANDSTILLS + AT_POINTS:
            point = next_point(scene.ground, SCHEDULER, scene.rng)
            await strike(scene.ground, point, scene.rng)
        else:
            scene.ground.kill(scene.rng.choice(scene.ground.schedulers))

    async def settle(self, scene: Scene) -> None:
        await asyncio.sleep(CALM)
        store = ScheduleStore(scene.ground.parts.database)
        for schedule in await scene.ground.rows(SCHEDULES):
            await store.pause(schedule.id, actor="faults")
        scene.load.adopt(
            [
                Task(task_id=row.id, agent=row.agent, input=row.input)
                for row in await scene.ground.rows(FIRED)
            ]
        )

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        schedules = await scene.ground.rows(SCHEDULES)
        ticks = await scene.ground.rows(TICKS)
        found = Counter((each.schedule, each.fire_at) for each in ticks)
        due = {(each.id, tick) for each in schedules for tick in _due(each)}
        tasks = Counter((each.schedule, each.fire_at) for each in await scene.ground.rows(TASKS))
        said = Counter((each.schedule, each.fire_at) for each in await scene.ground.rows(SAID))
        twice = [key for counted in (found, tasks, said) for key in counted if counted[key] > 1]
        return {
            "tick twice": _names(twice),
            "tick unrecorded": _names(due - found.keys()),
            "tick never due": _names(found.keys() - due),
            "tick fired without a task": _names(
                (each.schedule, each.fire_at) for each in ticks
                if each.outcome == "fired" and each.tasks != 1
            ),
            "tick not fired without a reason": _names(
                (each.schedule, each.fire_at) for each in ticks
                if each.outcome != "fired" and not each.reason
            ),
        }  # fmt: skip

    async def told(self, scene: Scene) -> Told:
        ticks = await scene.ground.rows(TICKS)
        schedules = await scene.ground.rows(SCHEDULES)
        # One that queues waits for the one before it, and is late by what that takes.
        queueing = {each.id for each in schedules if each.overlap == Overlap.QUEUE}
        late = [
            float(each.late) for each in ticks
            if each.outcome == "fired" and each.schedule not in queueing
            and not any(since <= each.fire_at.timestamp() <= until for since, until in self._stood)
        ]  # fmt: skip
        return {
            "ticks": {"in all": len(ticks), **Counter(each.outcome for each in ticks)},
            "schedulers that decided one": len({each.decided_by for each in ticks}),
            "standstills": len(self._stood),
            "seconds late": spread(late),
        }


def _looks(slot: Slot) -> bool:
    return "schedules are declared" in slot.log.read_text()


def _due(schedule: Any) -> Iterator[datetime]:
    """Second by second, whatever the scheduler's own arithmetic says; zones are minutes apart."""
    kind = KINDS[int(schedule.name.partition("-")[0])]
    moment = schedule.began.replace(microsecond=0) + timedelta(seconds=1)
    while moment <= max(schedule.decided_until, schedule.paused_at - UNDECIDED):
        if moment.second in kind.due:
            yield moment
        moment += timedelta(seconds=1)


def _names(ticks: Iterable[tuple[str, datetime]]) -> list[str]:
    return [f"{schedule} at {fire_at:%T}" for schedule, fire_at in ticks]


async def _stand_still(scene: Scene) -> tuple[float, float]:
    """Nobody looks for so long that ticks are missed, and must be recorded; from when to when."""
    since = time.time()
    for slot in scene.ground.schedulers:
        slot.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(scene.rng.uniform(*STANDSTILL))
    for slot in scene.ground.schedulers:
        with contextlib.suppress(ProcessLookupError):
            slot.process.send_signal(signal.SIGCONT)
    return since, time.time()
