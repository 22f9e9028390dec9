"""Persists the audit stream: every act that no change of a task's state says already.

Each producer numbers its acts; a number that is missing is a loss on the stream, and is said so.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from orchestrator.db.recording import record
from orchestrator.db.session import Database
from orchestrator.errors import DeadReason, Overloaded, Rejected, Unavailable
from orchestrator.event import Act
from orchestrator.record import AuditEntry, Unrecordable, Writes
from orchestrator.runtime.letter import letter_of
from orchestrator.runtime.service import OUTAGE_PAUSE, Stop
from orchestrator.streams.consumer import Consumer, Delivery
from orchestrator.streams.message import Message, decode
from orchestrator.streams.names import AUDIT
from orchestrator.task import derived_id

logger = logging.getLogger("aurora.auditor")

BATCH = 500
PRODUCERS = 10_000  # whose last number is remembered


class Auditor:
    """Reads for the group "auditor"."""

    name = "auditor"

    def __init__(self, consumer: Consumer, database: Database, *, max_payload: int) -> None:
        """Store."""
        self.consumer = consumer
        self.database = database
        self.max_payload = max_payload
        self._stop = Stop()
        self._last: OrderedDict[str, int] = OrderedDict()

    def stop(self) -> None:
        """Record what has been read, then return."""
        self._stop.set()

    async def run(self) -> None:
        """Record until stopped."""
        key = self.consumer.streams.keys.audit
        while not self._stop:
            try:
                await self.consumer.watch({key: AUDIT})
                if batch := await self.consumer.read(BATCH):
                    await self._keep(batch)
            except (Unavailable, Overloaded) as error:
                logger.warning("auditor waits: %s", error, extra={"event": "auditor.waits"})
                self.consumer.suspect_lost_reply()
                await self._stop.sleep(OUTAGE_PAUSE)

    async def _keep(self, batch: Sequence[Delivery]) -> None:
        try:
            await record(self.database, [], also=self._writes(batch))
        except Unrecordable as error:
            if len(batch) > 1:
                for each in batch:
                    await self._keep([each])
                return
            logger.error("act %s set aside: %s", batch[0].entry_id, error)  # noqa: TRY400
            letter = letter_of(batch[0], DeadReason.UNRECORDABLE, str(error))
            writes = Writes()
            writes.set_aside(letter, actor=self.consumer.name)
            await record(self.database, [], also=writes)
        await self.consumer.acknowledge(batch)

    def _writes(self, batch: Sequence[Delivery]) -> Writes:
        writes = Writes()
        for delivery in batch:
            try:
                message = decode(
                    delivery.fields,
                    stream=delivery.stream,
                    entry_id=delivery.entry_id,
                    limit=self.max_payload,
                )
            except Rejected as error:
                letter = letter_of(delivery, error.reason, str(error))
                writes.set_aside(letter, actor=self.consumer.name)
                continue
            act = _act(message)
            writes.audit.append(_entry(message.id, act))
            if (gap := self._gap(act)) is not None:
                writes.audit.append(gap)
        return writes

    def _gap(self, act: Act) -> AuditEntry | None:
        if act.producer is None or act.sequence is None:
            return None
        last = self._last.pop(act.producer, None)
        self._last[act.producer] = max(act.sequence, last or 0)
        if len(self._last) > PRODUCERS:
            self._last.popitem(last=False)
        if last is None or act.sequence <= last + 1:
            return None
        return AuditEntry(
            id=derived_id(act.producer, f"gap:{act.sequence}"),
            at=datetime.now(UTC),
            action="audit.gap",
            actor="auditor",
            object_type="producer",
            object_id=act.producer,
            detail={"after": last, "before": act.sequence},
        )


def _act(message: Message) -> Act:
    """An act as ours write it, or as much of one as another program's entry gives."""
    data = message.data
    try:
        return Act.model_validate({"at": message.at, **data})
    except ValidationError:
        return Act(
            action=_word(data, "action", "event", "event_type") or "foreign.message",
            actor=_word(data, "actor", "user", "agent") or message.producer or "unknown",
            object_type=_word(data, "object_type", "resource_type") or "message",
            object_id=_word(data, "object_id", "resource", "id") or message.id,
            at=message.at,
            detail=data,
        )


def _word(data: dict[str, Any], *names: str) -> str | None:
    for name in names:
        if isinstance(data.get(name), str) and data[name]:
            return str(data[name])[:200]
    return None


def _entry(message_id: str, act: Act) -> AuditEntry:
    return AuditEntry(id=message_id, **act.model_dump())
