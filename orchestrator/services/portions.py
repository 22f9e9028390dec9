"""How much the recorder writes at a time: a batch in portions, and a few portions at once.

While Postgres works on one, the next is made into rows and the one before is acknowledged.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.services.decoding import Item
from orchestrator.task import TaskId

# Of one transaction, and of all that are under way. A value of Postgres' ends at 1 GB, and each
# column of it is one; on the way there a message takes seven times its size.
PORTION_BYTES = 32 * 1024 * 1024
# One that Postgres writes, one that becomes rows, one that is acknowledged. A recorder that has the
# machine to itself drains a sixth faster than with one transaction at a time.
AT_ONCE = 3


def fitting(count: int, read: Sequence[Item]) -> int:
    """How many messages to read next, so that they come to one portion, after `read` of `count`.

    Twice as many at most: one large message among many small ones says little of the next ones.
    """
    size = sum(item.size for item in read)
    return max(1, min(2 * count, len(read) * PORTION_BYTES // size if size else 2 * count))


def portions(batch: Sequence[Item]) -> list[Sequence[Item]]:
    """The batch in order, in parts that are written by themselves; a message is never divided."""
    found: list[Sequence[Item]] = []
    first, size = 0, 0
    for place, item in enumerate(batch):
        size += item.size
        if size > PORTION_BYTES and place > first:
            found.append(batch[first:place])
            first, size = place, item.size
    return [*found, batch[first:]] if batch else []


@dataclass(frozen=True, slots=True)
class _Portion:
    entry_ids: list[str]
    task_ids: frozenset[TaskId]
    size: int  # bytes
    work: "asyncio.Task[None]"


class UnderWay:
    """Portions that are being written or acknowledged, in any order: no task is in two of them."""

    def __init__(self) -> None:
        """Nothing is under way yet."""
        self._portions: list[_Portion] = []

    def entry_ids(self) -> list[str]:
        """The entries in hand. Raises what went wrong with one before."""
        # What could not be acknowledged is in nobody's hand any more, and has to be read again.
        self._forget_ended()
        return [each for portion in self._portions for each in portion.entry_ids]

    async def begin(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], Coroutine[Any, Any, None]]
    ) -> None:
        """Begin `work` of a portion once there is room for it. Raises what one before raised."""
        task_ids = frozenset(item.message.task_id for item in items if item.message is not None)
        size = sum(item.size for item in items)
        self._forget_ended()
        while not self._has_room(task_ids, size):
            await self._wait(asyncio.FIRST_COMPLETED)
        self._portions.append(
            _Portion(
                entry_ids=[item.delivery.entry_id for item in items],
                task_ids=task_ids,
                size=size,
                work=asyncio.create_task(work(items)),
            )
        )

    async def settled(self) -> None:
        """Wait for all of them. Raises what one of them raised."""
        if self._portions:
            await self._wait(asyncio.ALL_COMPLETED)

    def _has_room(self, task_ids: frozenset[TaskId], size: int) -> bool:
        if not self._portions:
            return True
        return (
            len(self._portions) < AT_ONCE
            and size + sum(each.size for each in self._portions) <= PORTION_BYTES
            # What is said of a task is written in the order in which it was read.
            and all(each.task_ids.isdisjoint(task_ids) for each in self._portions)
        )

    async def _wait(self, until: str) -> None:
        await asyncio.wait([each.work for each in self._portions], return_when=until)
        self._forget_ended()

    def _forget_ended(self) -> None:
        ended = [each.work for each in self._portions if each.work.done()]
        self._portions = [each for each in self._portions if each.work not in ended]
        for work in ended:
            work.result()
