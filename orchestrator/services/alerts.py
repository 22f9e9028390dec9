"""Turns alerts into tasks and investigations, as the rules say; one class, two streams."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

from orchestrator.alert import Alert, Severity
from orchestrator.db.alerts import ReceivedAlert, Stored, known_times, store_alerts
from orchestrator.db.session import Database
from orchestrator.errors import DeadReason, Overloaded, Rejected, Unavailable
from orchestrator.formats.foreign import NotAnAlert
from orchestrator.formats.normalise import normalise
from orchestrator.investigation import Member
from orchestrator.record import AuditEntry, DeadLetterRecord, Unrecordable, Writes
from orchestrator.registry import AgentRegistry
from orchestrator.rule import Investigation, RuleFailed, Step, ask, task_for
from orchestrator.runtime.letter import letter_of
from orchestrator.runtime.service import OUTAGE_PAUSE, Stop
from orchestrator.streams.consumer import Consumer, Delivery
from orchestrator.streams.message import check_size, decode, entry_time
from orchestrator.streams.names import Stream
from orchestrator.task import Task, TaskId, derived_id

logger = logging.getLogger("aurora.alerts")

# Alerts in one transaction. A burst of 10,000 in 50 stories is stored in half the time that 200 a
# transaction take (measured).
BATCH = 500
# Alerts of a backlog that are in hand at a time, so that the critical among them come first. Who
# handles fewer than 700 a second is overtaken by the default lease: another handler then does some
# of it again, to no effect.
AHEAD = 10_000
AHEAD_BYTES = 64 * 2**20  # of them together, and at most a batch more

Publish = Callable[[Sequence[Task]], Coroutine[Any, Any, None]]


class Cancel(Protocol):
    """Ends a task from outside (runtime.submitter)."""

    async def __call__(self, task_id: TaskId, *, actor: str) -> object: ...


class AlertHandler:
    """Reads one of the alert streams. An alert is stored once, however often it is delivered."""

    def __init__(
        self,
        consumer: Consumer,
        database: Database,
        registry: AgentRegistry,
        *,
        stream: Stream,
        kind: str,
        publish: Publish,
        cancel: Cancel,
        max_payload: int,
    ) -> None:
        """Store. `publish` puts tasks whose rows are committed on their stream.

        `cancel` ends what waited to look at a story that has become critical since.
        """
        self.name = f"{kind} alerts"
        self.consumer = consumer
        self.database = database
        self.registry = registry
        self.stream = stream
        self.kind = kind
        self.publish = publish
        self.cancel = cancel
        self.max_payload = max_payload
        self._stop = Stop()

    def stop(self) -> None:
        """Return after what is in hand."""
        self._stop.set()

    async def run(self) -> None:
        """Handle until stopped."""
        key = self.consumer.streams.keys.of(self.stream)
        while not self._stop:
            try:
                await self.consumer.watch({key: self.stream})
                if batch := await self.consumer.read(BATCH):
                    for part in await self._with_backlog(batch):
                        await self._handle(part)
                        await self.consumer.acknowledge(part)
            except (Unavailable, Overloaded) as error:
                logger.warning("%s wait: %s", self.name, error, extra={"event": "alerts.wait"})
                self.consumer.suspect_lost_reply()
                await self._stop.sleep(OUTAGE_PAUSE)

    async def _with_backlog(self, batch: list[Delivery]) -> list[list[Delivery]]:
        """The batch, and where it was full what waits behind it: in batches, critical ones first.

        A stream gives its entries in order; a critical alert at the end of a storm would wait for
        all of it.
        """
        if len(batch) < BATCH:
            return [batch]
        critical: list[Delivery] = []
        others: list[Delivery] = []
        known: set[str] = set()
        size, more = 0, batch
        while more:
            for each in more:
                (critical if self._is_critical(each) else others).append(each)
                size += sum(map(len, each.fields.values()))
            known.update(each.entry_id for each in more)
            if len(more) < BATCH or len(known) >= AHEAD or size >= AHEAD_BYTES:
                break
            more = await self.consumer.read(BATCH, known=known, block=0.001)
        return [
            part[start : start + BATCH]
            for part in (critical, others)
            for start in range(0, len(part), BATCH)
        ]

    def _is_critical(self, delivery: Delivery) -> bool:
        try:
            return self._alert_of(delivery).severity is Severity.CRITICAL
        except Rejected:
            return False

    async def _handle(self, batch: Sequence[Delivery]) -> None:
        writes = Writes()
        read = [(each, found) for each in batch if (found := self._read(each, writes)) is not None]
        received = [
            self._asked(each, alert, writes) for each, alert in await self._first_told(read)
        ]
        try:
            stored = await self._store(received, writes)
        except (Unrecordable, Rejected) as error:
            if len(batch) > 1:
                for each in batch:
                    await self._handle([each])
                return
            reason = error.reason if isinstance(error, Rejected) else DeadReason.UNRECORDABLE
            aside = Writes()
            aside.set_aside(letter_of(batch[0], reason, str(error)), actor=self.consumer.name)
            await self._store([], aside)
            return
        # Rows that existed already were published, or are the reconciler's, as is what is left
        # to cancel when we end here.
        await self.publish(stored.tasks)
        for task_id in stored.replaced:
            await self.cancel(task_id, actor=self.consumer.name)

    async def _store(self, received: Sequence[ReceivedAlert], also: Writes) -> Stored:
        return await store_alerts(
            self.database, received, also=also, make=self._make, actor=self.consumer.name
        )

    def _read(self, delivery: Delivery, writes: Writes) -> Alert | None:
        try:
            return self._alert_of(delivery)
        except NotAnAlert as error:
            writes.audit.append(_said("alert.ignored", delivery, str(error), self.consumer.name))
            return None
        except Rejected as error:
            self._set_aside(delivery, error.reason, str(error), writes)
            return None

    def _alert_of(self, delivery: Delivery) -> Alert:
        message = decode(
            delivery.fields,
            stream=delivery.stream,
            entry_id=delivery.entry_id,
            limit=self.max_payload,
        )
        return normalise(
            message.data,
            id=message.id,
            kind=self.kind,
            received_at=entry_time(delivery.entry_id),
        )

    async def _first_told(
        self, read: Sequence[tuple[Delivery, Alert]]
    ) -> list[tuple[Delivery, Alert]]:
        """The alerts, those that do not say when they occurred with the time of their first entry.

        Otherwise an alert that is published again would be another one to its rules and agents.
        """
        silent = {
            each.entry_id: alert
            for each, alert in read
            if alert.occurred_at == entry_time(each.entry_id)
        }
        if not silent:
            return list(read)
        first = {alert.id: alert.occurred_at for alert in reversed(silent.values())}
        first |= await known_times(self.database, list(first))
        for entry_id, alert in silent.items():
            silent[entry_id] = alert.model_copy(update={"occurred_at": first[alert.id]})
        return [(each, silent.get(each.entry_id, alert)) for each, alert in read]

    def _asked(self, delivery: Delivery, alert: Alert, writes: Writes) -> ReceivedAlert:
        """What each rule wants of the alert; one that fails is no matter to the others."""
        tasks, claims, refused = [], [], []
        for rule in self.registry.rules:
            try:
                claim = ask(rule, alert)
                if claim is not None and claim.key is not None:
                    claims.append(claim)
                elif claim is not None:
                    tasks.append(self._checked(task_for(rule, alert), rule.name))
            except RuleFailed as error:
                refused.append(error)
        if not (tasks or claims or refused):
            writes.audit.append(
                _said("alert.unmatched", delivery, alert.signature, self.consumer.name)
            )
        return ReceivedAlert(
            alert=alert,
            received_at=entry_time(delivery.entry_id),
            entry_id=delivery.entry_id,
            tasks=tuple(tasks),
            claims=tuple(claims),
            refused=tuple(refused),
            letter=partial(_letter, delivery),
        )

    def _make(self, member: Member, investigation: Investigation, step: Step) -> Task:
        """A step's task. The first waits for others of its story, a critical one for nothing."""
        wait = member.rule.gather if step is Step.FIRST else timedelta(0)
        task = task_for(
            member.rule,
            member.alert,
            investigation=investigation,
            step=step,
            run_at=datetime.now(UTC) + wait if wait else None,
        )
        return self._checked(task, member.rule.name)

    def _checked(self, task: Task, rule: str) -> Task:
        try:
            check_size(task, self.max_payload)
        except Rejected as error:
            raise RuleFailed(rule, str(error), reason=error.reason) from error
        return task

    def _set_aside(
        self, delivery: Delivery, reason: DeadReason, detail: str, writes: Writes
    ) -> None:
        _warn(delivery, detail)
        writes.set_aside(letter_of(delivery, reason, detail), actor=self.consumer.name)


def _letter(delivery: Delivery, failed: Sequence[RuleFailed]) -> DeadLetterRecord:
    """One letter an entry: redriven, the alert meets every rule again, and each takes it once."""
    detail = "; ".join(str(each) for each in failed)
    _warn(delivery, detail)
    return letter_of(delivery, failed[0].reason, detail)


def _warn(delivery: Delivery, detail: str) -> None:
    logger.warning(
        "alert %s set aside: %s", delivery.entry_id, detail,
        extra={"event": "alert.dead_lettered"},
    )  # fmt: skip


def _said(action: str, delivery: Delivery, detail: str, actor: str) -> AuditEntry:
    return AuditEntry(
        id=derived_id(f"{delivery.stream}:{action}", delivery.entry_id),
        at=entry_time(delivery.entry_id),
        action=action,
        actor=actor,
        object_type="message",
        object_id=delivery.entry_id,
        detail={"stream": delivery.stream, "said": detail},
    )
