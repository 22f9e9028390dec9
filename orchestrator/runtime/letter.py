"""The dead letter of a delivery that a service sets aside: one shape, whoever read it."""

from datetime import UTC, datetime

from orchestrator.errors import DeadReason
from orchestrator.record import DeadLetterRecord
from orchestrator.streams.consumer import Delivery
from orchestrator.streams.message import raw_fields
from orchestrator.task import derived_id


def letter_of(delivery: Delivery, reason: DeadReason, detail: str) -> DeadLetterRecord:
    """Of a message that is no task's (yet); the same id however often it is made."""
    return DeadLetterRecord(
        id=derived_id(delivery.stream, delivery.entry_id),
        stream=delivery.stream,
        entry_id=delivery.entry_id,
        task_id=None,
        agent=None,
        reason=reason,
        detail=detail,
        fields=raw_fields(delivery.fields),
        created_at=datetime.now(UTC),
    )
