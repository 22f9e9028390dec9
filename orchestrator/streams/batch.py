"""A batch of entries goes through one step after the other, not entry by entry.

A task takes 13 µs to read alone and 8 among a hundred (docs/performance.md), probably as a step
then finds its code and data in the processor's caches still.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from orchestrator.errors import DeadReason, Rejected
from orchestrator.streams.consumer import Delivery
from orchestrator.streams.message import Message, decode

GivenT = TypeVar("GivenT")
FoundT = TypeVar("FoundT")


class Refused(NamedTuple):
    """Why an entry is no message of ours."""

    reason: DeadReason
    detail: str


def applied(
    step: Callable[[GivenT], FoundT], given: Iterable[GivenT | Refused]
) -> list[FoundT | Refused]:
    """What the step makes of each; what is refused, now or before, stays in its place."""
    found: list[FoundT | Refused] = []
    for one in given:
        if isinstance(one, Refused):
            found.append(one)
            continue
        try:
            found.append(step(one))
        except Rejected as error:
            found.append(Refused(error.reason, str(error)))
    return found


def decoded(deliveries: Iterable[Delivery], *, limit: int) -> list[Message | Refused]:
    """Each as `decode` reads it; `limit` in bytes."""
    return applied(
        lambda delivery: decode(
            delivery.fields, stream=delivery.stream, entry_id=delivery.entry_id, limit=limit
        ),
        deliveries,
    )
