"""Takes messages from the group "orchestrator" and gives them to runners, one for each slot.

Never says that a task succeeded: that is `completion`'s, and only for the owner of the entry.
"""

import asyncio
import logging
import math
import os
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator.agent import Agent, Isolation
from orchestrator.client import Submitter, set_submitter
from orchestrator.context import Asker, Query, RunClock, RunContext
from orchestrator.errors import Overloaded, Unavailable, text_of
from orchestrator.outcome import Crashed, Failed, Fault, Outcome, Superseded
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.completion import Completion, Ending
from orchestrator.runtime.flight import (
    Boarding,
    Flight,
    Question,
    after_crash,
    answered,
    question_of,
)
from orchestrator.runtime.isolated import IsolatedRunner
from orchestrator.runtime.lease import EXIT_BLOCKED, Held, Lease, hand_back
from orchestrator.runtime.model_access import ModelDesk
from orchestrator.runtime.pressure import Pressure
from orchestrator.runtime.runner import Runner
from orchestrator.runtime.service import Stop, every, wait_at_most
from orchestrator.runtime.traced import tell_unbegun, traced
from orchestrator.runtime.voice import Voice
from orchestrator.spending import budget_of
from orchestrator.streams.consumer import Consumer, Delivery
from orchestrator.streams.lanes import steps
from orchestrator.streams.names import RESULTS, TASKS
from orchestrator.streams.pending import Entry
from orchestrator.streams.publisher import Publisher
from orchestrator.task import TaskId

if TYPE_CHECKING:
    from orchestrator.tracing.spans import Tracing

logger = logging.getLogger("aurora.dispatcher")

LAST_WORDS = 2.0  # seconds for cancelled runs to clean up


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a worker takes on, and how long it waits."""

    concurrency: int
    max_payload: int
    max_starts: int
    grace: timedelta


class Dispatcher:
    """The worker's heart; one per process."""

    name = "dispatcher"

    def __init__(
        self,
        consumer: Consumer,
        publisher: Publisher,
        registry: AgentRegistry,
        runner: Runner,
        lease: Lease,
        *,
        isolated: IsolatedRunner,
        submitter: Submitter,
        read: Query,
        desk: ModelDesk,
        asker: Asker | None,
        queues: Sequence[str],
        limits: Limits,
        marker_ttl: timedelta,
        tracing: "Tracing | None" = None,
    ) -> None:
        """Store."""
        self.consumer = consumer
        self.publisher = publisher
        self.runner = runner
        self.isolated = isolated
        self.lease = lease
        self.submitter = submitter
        self.read = read
        self.desk = desk
        self.asker = asker
        self.queues = queues
        self.limits = limits
        self.tracing = tracing
        self.streams = publisher.streams
        self._boarding = Boarding(
            registry=registry, max_payload=limits.max_payload, max_starts=limits.max_starts
        )
        self._marker_ttl = int(marker_ttl.total_seconds() * 1000)
        self._completion = Completion(
            self.streams,
            group=consumer.group,
            consumer=consumer.name,
            marker_ttl=marker_ttl,
            on_finished=self._finished,
        )
        self._voice = Voice(self.streams, group=consumer.group, consumer=consumer.name)
        self._agents: dict[str, Agent[Any, Any]] = {each.name: each() for each in registry}
        self._turns = {
            each.name: asyncio.Semaphore(each.concurrency) for each in registry if each.concurrency
        }
        self._flights: dict[tuple[str, str], Flight] = {}
        self._free = asyncio.Event()
        self._at_work = asyncio.Event()
        self._stop = Stop()
        self._turn = 0
        self._pressure = Pressure(self.streams)
        self._stubborn = 0

    @property
    def busy(self) -> int:
        """Attempts in hand."""
        return len(self._flights)

    def stop(self) -> None:
        """Stop reading, finish within the grace time or hand back. A second call: at once."""
        if self._stop:
            self.limits = replace(self.limits, grace=timedelta(0))
        self._stop.set()
        self._free.set()
        self._at_work.set()

    async def run(self) -> None:
        """Take and run until stopped; then drain."""
        set_submitter(self.submitter)
        await self._watch_lanes()
        self.lease.start()
        background = [
            self._beside(self._completion.run(), name="completion"),
            self._beside(
                every(0.25, self._tell_starts, stop=self._stop, name="starts"), name="starts"
            ),
            self._beside(every(1.0, self._look, stop=self._stop, name="look"), name="look"),
        ]
        try:
            while not self._stop:
                await self._take()
            await self._drain()
        finally:
            self._stop.set()
            self._at_work.set()
            await self.desk.close()
            if self.asker is not None:
                await self.asker.close()
            self._completion.stop()
            # An error of one of them is the worker's: it is raised here, and ends the process.
            await asyncio.gather(*background)
            await self.lease.stop()
        if self._stubborn:
            # Their entries are with others by now; waiting for them would be waiting for ever.
            logger.critical(
                "%d runs ignore their cancellation; ending this process", self._stubborn,
                extra={"event": "worker.stubborn"},
            )  # fmt: skip
            logging.shutdown()
            os._exit(EXIT_BLOCKED)

    def _beside(self, work: Coroutine[Any, Any, None], *, name: str) -> "asyncio.Task[None]":
        """Run beside the reading; should it end by an error, reading ends too."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(lambda done: self.stop() if _failed(done) else None)
        return task

    async def _watch_lanes(self) -> None:
        lanes = {key: TASKS for queue in self.queues for key in self.streams.keys.lanes(queue)}
        while not self._stop:
            try:
                await self.streams.announce_queues(self.queues)
                await self.consumer.watch(lanes)
                await self.streams.ensure_groups({self.streams.keys.results: RESULTS})
            except (Unavailable, Overloaded) as error:
                logger.warning("waiting to start: %s", error, extra={"event": "redis.away"})
                await self._stop.sleep(1.0)
            else:
                return

    async def _take(self) -> None:
        if self.limits.concurrency <= len(self._flights) or self._pressure.reason:
            await self._until_free()
            return
        free = self.limits.concurrency - len(self._flights)
        if 2 * free < self.limits.concurrency and self._completion.busy:
            # Ends are on their way: the slots they free are read for together, not in two reads.
            await self._until_free()
            if self._stop:
                return
            free = self.limits.concurrency - len(self._flights)
        queues = [self.streams.keys.lanes(queue) for queue in self.queues]
        self._turn += 1
        deliveries = await self.consumer.take(
            free,
            steps(queues, free=free, turn=self._turn),
            known=[entry_id for _, entry_id in self._flights],
        )
        deliveries = self.lease.received(deliveries)
        if deliveries:
            try:
                await self._begin(deliveries)
            except (Unavailable, Overloaded) as error:
                logger.warning("not begun: %s", error, extra={"event": "redis.away"})
                self.consumer.suspect_lost_reply()
            await asyncio.sleep(0)  # what ends at its first step is seen before the next read

    async def _until_free(self) -> None:
        """Wait until something has ended, at most a second."""
        self._free.clear()
        await wait_at_most(1.0, self._free)

    async def _begin(self, deliveries: Sequence[Delivery]) -> None:
        """Start what may start; end what may not."""
        asked: list[tuple[Flight | Ending, Question]] = []
        fresh = [each for each in deliveries if (each.stream, each.entry_id) not in self._flights]
        for boarded in self._boarding.of(fresh, named=self._named(deliveries)):
            if (question := question_of(boarded)) is not None:
                asked.append((boarded, question))
            elif isinstance(boarded, Ending):
                self._end_unbegun(boarded)
        if not asked:
            return
        answers = await self.streams.run(
            "begin",
            [self.streams.keys.marker(question.task_id) for _, question in asked],
            [self._marker_ttl, *(part for _, each in asked for part in each[1:])],
        )
        for (boarded, _), answer in zip(asked, answers, strict=True):
            found = answered(boarded, answer.decode())
            if isinstance(found, Flight):
                self._start(found)
            else:
                self._end_unbegun(found)

    def _named(self, deliveries: Sequence[Delivery]) -> frozenset[TaskId]:
        again = any(each.times > 1 for each in deliveries)
        neighbours = self.consumer.neighbours
        return neighbours.named() if again and neighbours is not None else frozenset()

    def _end_unbegun(self, ending: Ending) -> None:
        if self.tracing is not None:
            tell_unbegun(self.tracing, ending, self.consumer)
        self._completion.add(ending)

    def _start(self, flight: Flight) -> None:
        key = flight.key
        agent = self._agents[flight.task.agent]
        self._flights[key] = flight
        self._at_work.set()
        self.lease.held[key] = Held(
            entry=Entry(*key, times=flight.delivery.times),
            task_id=flight.task.task_id,
            marker=self.streams.keys.marker(flight.task.task_id),
            begun=f"{flight.attempt}:{flight.digest}:",
            deadline=math.inf,  # until it runs here, nothing of it can block our loop
        )
        flight.running = asyncio.create_task(self._fly(flight, agent))

    async def _fly(self, flight: Flight, agent: Agent[Any, Any]) -> None:
        """One attempt from its start to its ending."""
        turn = self._turns.get(agent.name)
        attempt = self._attempt if self.tracing is None else self._traced
        try:
            if flight.crashes > flight.task.crashes:
                # After a crash the start is told at once: should it crash again, the record knows.
                await self._voice.announce_one(flight)
            if turn is None:
                outcome = await attempt(flight, agent)
            else:
                async with turn:
                    outcome = await attempt(flight, agent)
        except asyncio.CancelledError:
            if flight.dropped is None:
                raise
            outcome = Superseded(flight.dropped)
        except BaseException as error:
            # Neither a fault of ours nor what an agent raises past every Exception may keep the
            # slot and the lease for ever.
            logger.exception("task %s: our fault", flight.task.task_id,
                             extra={"event": "dispatcher.surprised"})  # fmt: skip
            message = f"a fault in the worker: {text_of(error)}"
            outcome = Failed(Fault(type=type(error).__name__, message=message))
        finally:
            # It knows its run, the run its context, the context the flight: left so, the memory of
            # each attempt would wait for the collector, which seldom comes.
            flight.running = None
        self._completion.add(flight.ending(outcome))

    async def _traced(self, flight: Flight, agent: Agent[Any, Any]) -> Outcome:
        assert self.tracing is not None  # noqa: S101 - or `_attempt` is called
        return await traced(
            self.tracing, flight, self.consumer, lambda: self._attempt(flight, agent)
        )

    async def _attempt(self, flight: Flight, agent: Agent[Any, Any]) -> Outcome:
        flight.started_at = datetime.now(UTC)
        isolated = flight.suspect or agent.isolation == Isolation.PROCESS
        held = self.lease.held.get(flight.key)
        if held is not None and not isolated:
            held.deadline = time.monotonic() + agent.timeout.total_seconds()
        budget = budget_of(agent.budget, flight.task.budget)
        context = RunContext(
            task=flight.task,
            attempt=flight.attempt,
            worker=self.consumer.name,
            deadline=flight.started_at + agent.timeout,
            emit=lambda detail: self._voice.progress(flight, detail),
            read=self.read,
            budget=budget,
            access=self.desk.of(flight.task, flight.attempt, budget),
            asker=self.asker,
            clock=RunClock(lambda seconds: self._extend(flight, seconds)),
        )
        if not isolated:
            return await self.runner.run(agent, context)
        if flight.suspect:
            logger.warning(
                "task %s runs in a process of its own; starts of it that did not end: %d",
                flight.task.task_id, flight.crashes,
                extra={"event": "task.suspect", "task_id": flight.task.task_id},
            )  # fmt: skip
        outcome = await self.isolated.run(agent, context)
        if isinstance(outcome, Crashed):
            most = self.limits.max_starts
            outcome = after_crash(outcome, crashes=flight.crashes, max_starts=most)
        return outcome

    def _extend(self, flight: Flight, seconds: float) -> None:
        if (held := self.lease.held.get(flight.key)) is not None:
            held.deadline += seconds

    def _finished(self, ending: Ending, answer: str) -> None:
        key = (ending.delivery.stream, ending.delivery.entry_id)
        self._flights.pop(key, None)
        if not self._flights:
            self._at_work.clear()
        self.lease.held.pop(key, None)
        self._free.set()
        if answer == "ok" and not isinstance(ending.outcome, Superseded):
            return
        logger.info(
            "task %s attempt %d was superseded (%s)", ending.task_id, ending.attempt, answer,
            extra={"event": "attempt.superseded", "task_id": ending.task_id},
        )  # fmt: skip
        asyncio.ensure_future(self._say_superseded(ending, answer))  # noqa: RUF006 - best effort

    async def _say_superseded(self, ending: Ending, answer: str) -> None:
        try:
            await self.publisher.audit(
                "attempt.superseded",
                object_type="task",
                object_id=ending.task_id,
                detail={
                    "attempt": ending.attempt,
                    "why": answer,
                    "outcome": type(ending.outcome).__name__,
                    "entry_id": ending.delivery.entry_id,
                },
            )
        except (Unavailable, Overloaded) as error:
            logger.warning("not audited: %s", error, extra={"event": "audit.lost"})

    def lost(self, entries: list[tuple[str, str]]) -> None:
        """Runs whose task ended elsewhere or whose entry another worker owns: stop them."""
        for key in entries:
            flight = self._flights.get(key)
            if flight is not None and flight.running is not None and flight.dropped is None:
                flight.dropped = "lost or ended elsewhere"
                flight.running.cancel()

    async def _tell_starts(self) -> None:
        await self._at_work.wait()  # who waits for work is not woken up for this
        await self._voice.announce(list(self._flights.values()))

    async def _look(self) -> None:
        await self.streams.announce_queues(self.queues)
        if await self._pressure.look():
            self._free.set()

    async def _drain(self) -> None:
        """Finish what is in hand within the grace time; hand the rest back."""
        began = time.monotonic()
        while self._flights and time.monotonic() - began < self.limits.grace.total_seconds():
            self._free.clear()
            await wait_at_most(0.2, self._free)
        left = list(self._flights.items())
        if not left:
            return
        held = [self.lease.held[key].entry for key, _ in left if key in self.lease.held]
        for key, flight in left:
            self.lease.held.pop(key, None)
            self._flights.pop(key, None)
            if flight.running is not None:
                flight.running.cancel()
        cancelled = [flight.running for _, flight in left if flight.running]
        if cancelled:
            # Code that swallows its cancellation does not keep the process.
            _, left_over = await asyncio.wait(cancelled, timeout=LAST_WORDS)
            self._stubborn = len(left_over)
        try:
            done = await hand_back(
                self.streams, held, group=self.consumer.group, consumer=self.consumer.name
            )
        except (Unavailable, Overloaded) as error:
            logger.warning("not handed back, their lease will run out: %s", error)
            return
        logger.info("handed back %d tasks", done, extra={"event": "tasks.handed_back"})


def _failed(done: "asyncio.Task[None]") -> BaseException | None:
    return None if done.cancelled() else done.exception()
