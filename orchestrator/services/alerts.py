"""Turns alerts into tasks for the agents whose rules match them; one class, two streams."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from orchestrator.alert import Alert
from orchestrator.db.alerts import ReceivedAlert, store_alerts
from orchestrator.db.session import Database
from orchestrator.errors import DeadReason, Overloaded, Rejected, Unavailable
from orchestrator.formats.foreign import NotAnAlert
from orchestrator.formats.normalise import normalise
from orchestrator.record import AuditEntry, Unrecordable, Writes
from orchestrator.registry import AgentClass, AgentRegistry
from orchestrator.runtime.letter import letter_of
from orchestrator.runtime.service import OUTAGE_PAUSE, Stop
from orchestrator.streams.consumer import Consumer, Delivery
from orchestrator.streams.message import check_size, decode, entry_time
from orchestrator.streams.names import Stream
from orchestrator.task import Task, derived_id, idempotent_id

logger = logging.getLogger("aurora.alerts")

BATCH = 200  # alerts in one transaction

Publish = Callable[[Sequence[Task]], Coroutine[Any, Any, None]]


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
        max_payload: int,
    ) -> None:
        """Store. `publish` puts tasks whose rows are committed on their stream."""
        self.name = f"{kind} alerts"
        self.consumer = consumer
        self.database = database
        self.registry = registry
        self.stream = stream
        self.kind = kind
        self.publish = publish
        self.max_payload = max_payload
        self._stop = Stop()

    def stop(self) -> None:
        """Return after the batch under way."""
        self._stop.set()

    async def run(self) -> None:
        """Handle until stopped."""
        key = self.consumer.streams.keys.of(self.stream)
        while not self._stop:
            try:
                await self.consumer.watch({key: self.stream})
                if batch := await self.consumer.read(BATCH):
                    await self._handle(batch)
                    await self.consumer.acknowledge(batch)
            except (Unavailable, Overloaded) as error:
                logger.warning("%s wait: %s", self.name, error, extra={"event": "alerts.wait"})
                self.consumer.suspect_lost_reply()
                await self._stop.sleep(OUTAGE_PAUSE)

    async def _handle(self, batch: Sequence[Delivery]) -> None:
        writes = Writes()
        received = [found for each in batch if (found := self._read(each, writes)) is not None]
        try:
            created = await store_alerts(
                self.database, received, also=writes, actor=self.consumer.name
            )
        except (Unrecordable, Rejected) as error:
            if len(batch) > 1:
                for each in batch:
                    await self._handle([each])
                return
            reason = error.reason if isinstance(error, Rejected) else DeadReason.UNRECORDABLE
            aside = Writes()
            aside.set_aside(letter_of(batch[0], reason, str(error)), actor=self.consumer.name)
            await store_alerts(self.database, [], also=aside, actor=self.consumer.name)
            return
        # Rows that exist already were published, or are the reconciler's.
        await self.publish(
            [task for each in received for task in each.tasks if created[task.task_id]]
        )

    def _read(self, delivery: Delivery, writes: Writes) -> ReceivedAlert | None:
        taken = entry_time(delivery.entry_id)
        try:
            message = decode(
                delivery.fields,
                stream=delivery.stream,
                entry_id=delivery.entry_id,
                limit=self.max_payload,
            )
            alert = normalise(message.data, id=message.id, kind=self.kind, received_at=taken)
            tasks = self._tasks(alert)
        except NotAnAlert as error:
            writes.audit.append(_said("alert.ignored", delivery, str(error), self.consumer.name))
            return None
        except Rejected as error:
            self._set_aside(delivery, error.reason, str(error), writes)
            return None
        if not tasks:
            writes.audit.append(
                _said("alert.unmatched", delivery, alert.signature, self.consumer.name)
            )
        return ReceivedAlert(
            alert=alert, received_at=taken, entry_id=delivery.entry_id, tasks=tasks
        )

    def _tasks(self, alert: Alert) -> tuple[Task, ...]:
        """One task for each agent with a rule that matches; derived ids, so never two."""
        found = (_task(agent, alert) for agent in self.registry)
        tasks = tuple(task for task in found if task is not None)
        for task in tasks:
            check_size(task, self.max_payload)
        return tasks

    def _set_aside(
        self, delivery: Delivery, reason: DeadReason, detail: str, writes: Writes
    ) -> None:
        logger.warning(
            "alert %s set aside: %s", delivery.entry_id, detail,
            extra={"event": "alert.dead_lettered"},
        )  # fmt: skip
        writes.set_aside(letter_of(delivery, reason, detail), actor=self.consumer.name)


class RuleFailed(Rejected):
    """A rule raised; the alert is set aside so that its rule can be mended and it redriven."""

    reason = DeadReason.RULE_FAILED


def _task(agent: AgentClass, alert: Alert) -> Task | None:
    """The task of the first rule that matches; None without one."""
    try:
        for rule in agent.alerts:
            if rule.matches(alert):
                return agent.task(
                    alert,
                    task_id=idempotent_id(tenant="alerts", agent=agent.name, key=alert.id),
                    priority=rule.priority_of(alert),
                    metadata={"alert_id": alert.id},
                )
    except Rejected:
        raise
    except Exception as error:
        logger.exception("a rule of agent %s raised", agent.name, extra={"event": "rule.raised"})
        raise RuleFailed(
            f"a rule of agent {agent.name!r} raised {type(error).__name__}: {error}"
        ) from error
    return None


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
