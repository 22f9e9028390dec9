"""Fires the ticks of schedules: each once, however many schedulers run, and none of them leads.

Every scheduler looks for schedules that are due by Postgres' clock, decides their ticks
(`crontab.plan`), and commits ticks, tasks and audit in one transaction (`db/ticks.py`). What it
then fails to publish is the reconciler's.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from orchestrator.cron import Crontab, Decision, TickOutcome, plan
from orchestrator.db import ticks
from orchestrator.db.schedules import ScheduleStore
from orchestrator.db.ticks import Clock, Decided, Due, Schedule
from orchestrator.errors import InvalidInput, InvalidSchedule, Rejected, TaskIdConflict
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.service import Stop, every
from orchestrator.task import Task, TaskId

logger = logging.getLogger("aurora.scheduler")

LOOK_EVERY = 1.0  # seconds at most between looks: a new schedule is seen that late
AFTER_TICK = 0.001  # seconds to wake after a tick: a look that comes too early finds nothing
PLANNING = 1.0  # seconds of planning in one transaction, whose locks are held meanwhile
MAX_PUBLISHING = 10  # rounds on their way to Redis; with more, the rest is the reconciler's


class Publishing(Protocol):
    """What the scheduler needs of the submitter (runtime.submitter.TaskSubmitter)."""

    async def publish_accepted(self, tasks: Sequence[Task]) -> None: ...


class Scheduler:
    """One of any number. Declares the agents' schedules at its start, then fires what is due."""

    def __init__(
        self,
        store: ScheduleStore,
        submitter: Publishing,
        registry: AgentRegistry,
        *,
        name: str = "scheduler",
    ) -> None:
        """Store. `name` is the actor in the audit, and who decided a tick."""
        self.name = name
        self.store = store
        self.submitter = submitter
        self.registry = registry
        self._stop = Stop()
        self._declared = False
        self._publishing: set[asyncio.Task[None]] = set()
        # Ids of ticks whose task cannot be: somebody used the id for another content.
        self._taken: set[TaskId] = set()

    def stop(self) -> None:
        """Return after the round under way."""
        self._stop.set()

    async def run(self) -> None:
        """Fire ticks until stopped. Raises InvalidSchedule for a declaration that cannot stand."""
        await every(LOOK_EVERY, self.look, stop=self._stop, name=self.name)
        if self._publishing:
            await asyncio.wait(self._publishing)

    async def declare(self) -> None:
        """Make the record's declared schedules those of our agents. Raises InvalidSchedule."""
        declared: list[tuple[str, Crontab]] = []
        for agent in self.registry:
            for crontab in agent.schedules:
                try:
                    agent.load_input(crontab.input)
                except InvalidInput as error:
                    raise InvalidSchedule(f"schedule {crontab.expression!r}: {error}") from error
                declared.append((agent.name, crontab))
        synced = await self.store.sync_declared(declared, actor=self.name)
        logger.info(
            "%d schedules are declared on agents", len(synced), extra={"event": "schedule.declared"}
        )

    async def look(self) -> float:
        """Decide what is due, once; the seconds from the call until it should be called again."""
        began = time.monotonic()
        if not self._declared:
            await self.declare()
            self._declared = True
        try:
            async with self.store.database.transaction() as connection:
                clock = await ticks.clock(connection)
                read_at = time.monotonic()
                found = await ticks.due(connection)
                decided, unreadable = self._decide(found, clock.now)
                fired = (
                    await ticks.decide(connection, decided, now=clock.now, actor=self.name)
                    if decided
                    else []
                )
                following = await ticks.next_tick(connection)
        except TaskIdConflict as error:
            self._taken.add(error.task_id)
            return 0.0
        self._taken.clear()
        self._publish(fired, decided, clock)
        for schedule, problem in unreadable:
            await self._set_aside(schedule, problem)
        if len(found) == ticks.BATCH or _unfinished(found, decided, clock.now):
            return 0.0
        if following is None:
            return LOOK_EVERY
        # By the database's clock, which stood at `reading` at our `read_at` or shortly before.
        return (following - clock.reading).total_seconds() + read_at - began + AFTER_TICK

    def _decide(
        self, found: Sequence[Due], now: datetime
    ) -> tuple[list[Decided], list[tuple[Schedule, InvalidSchedule]]]:
        decided: list[Decided] = []
        unreadable: list[tuple[Schedule, InvalidSchedule]] = []
        began = time.monotonic()
        for due in found:
            if time.monotonic() - began > PLANNING:
                break  # after a long outage; the next round goes on
            try:
                decided.append(self._planned(due, now))
            except InvalidSchedule as error:
                unreadable.append((due.schedule, error))
        return decided, unreadable

    def _planned(self, due: Due, now: datetime) -> Decided:
        """The plan of one schedule, with its tasks. Raises InvalidSchedule."""
        schedule, crontab = due.schedule, due.schedule.crontab
        model = blocked = None
        try:
            model = self.registry.get(schedule.agent).task(crontab.input)
        except Rejected as error:
            blocked = str(error)
        found = plan(
            crontab,
            decided_until=schedule.decided_until,
            now=now,
            previous_open=due.previous_open,
            waiting=due.waiting,
            blocked=blocked,
        )
        tasks: dict[datetime, Task] = {}
        decisions: list[Decision] = []
        for decision in found.decisions:
            settled = decision
            if model is not None and decision.outcome is TickOutcome.FIRED:
                task = _task_of(schedule, decision.fire_at, model)
                if task.task_id in self._taken:
                    settled = replace(
                        decision,
                        outcome=TickOutcome.MISSED,
                        reason=f"task {task.task_id} exists with another agent or input",
                    )
                else:
                    tasks[decision.fire_at] = task
            decisions.append(settled)
        return Decided(
            schedule=schedule, plan=replace(found, decisions=tuple(decisions)), tasks=tasks
        )

    def _publish(self, fired: Sequence[Task], decided: Sequence[Decided], clock: Clock) -> None:
        _log(fired, decided, clock)
        if not fired:
            return
        if len(self._publishing) >= MAX_PUBLISHING:
            logger.warning(
                "%d scheduled tasks wait for the reconciler: Redis is slow", len(fired),
                extra={"event": "publish.deferred"},
            )  # fmt: skip
            return
        # Beside the loop: a Redis that does not answer must not make the next tick late.
        publishing = asyncio.create_task(self.submitter.publish_accepted(fired))
        self._publishing.add(publishing)
        publishing.add_done_callback(self._published)

    def _published(self, publishing: asyncio.Task[None]) -> None:
        self._publishing.discard(publishing)
        if not publishing.cancelled() and (error := publishing.exception()) is not None:
            logger.error(
                "publishing failed; the reconciler will: %s", error,
                exc_info=error, extra={"event": "publish.failed"},
            )  # fmt: skip

    async def _set_aside(self, schedule: Schedule, problem: InvalidSchedule) -> None:
        """Pause what cannot be read, such as a zone this machine does not know; say so."""
        logger.error(
            "schedule %s is paused: %s", schedule.name, problem,
            extra={"event": "schedule.unreadable", "schedule_id": schedule.id},
        )  # fmt: skip
        await self.store.pause(schedule.id, actor=self.name, reason=str(problem))


def _task_of(schedule: Schedule, fire_at: datetime, model: Task) -> Task:
    return model.model_copy(
        update={
            "task_id": ticks.tick_task_id(schedule.id, fire_at),
            # db/ticks.py reads fire_at back to find the tick that waits for this task.
            "metadata": {
                "schedule_id": schedule.id,
                "schedule": schedule.name,
                "fire_at": fire_at.isoformat(),
            },
        }
    )


def _unfinished(found: Sequence[Due], decided: Sequence[Decided], now: datetime) -> bool:
    return len(found) > len(decided) or any(each.plan.next_tick_at <= now for each in decided)


def _log(fired: Sequence[Task], decided: Sequence[Decided], clock: Clock) -> None:
    ours = {task.task_id for task in fired}
    for each in decided:
        for decision in each.plan.decisions:
            task = each.tasks.get(decision.fire_at)
            if task is not None and task.task_id in ours:
                late = (clock.now - decision.fire_at).total_seconds()
                logger.info(
                    "schedule %s fired %s, %.3f s late, as task %s",
                    each.schedule.name, decision.fire_at.isoformat(), late, task.task_id,
                    extra={
                        "event": "schedule.fired", "schedule_id": each.schedule.id,
                        "task_id": task.task_id, "late": late,
                    },
                )  # fmt: skip
            elif decision.outcome is not TickOutcome.FIRED:
                logger.info(
                    "schedule %s: tick %s is %s: %s",
                    each.schedule.name, decision.fire_at.isoformat(), decision.outcome,
                    decision.reason,
                    extra={
                        "event": f"schedule.{decision.outcome}", "schedule_id": each.schedule.id,
                    },
                )  # fmt: skip
