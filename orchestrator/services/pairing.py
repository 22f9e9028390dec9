"""Which tasks wait a moment for their end, to be written with it.

A short task's message and its end arrive within milliseconds of each other, on two streams. Written
together they are one row that is inserted once; apart, a row that is inserted, locked and updated.
What waits is not acknowledged, so it is not lost with its recorder.
"""

from collections.abc import Iterable

from orchestrator.record import HeardEvent, SeenTask
from orchestrator.services.decoding import Item
from orchestrator.task import TaskId

HOLD = 0.5  # seconds that a row may show up later
# Tasks that wait; with more of them, only ends are read. What is read too far ahead of the workers
# is overdue before it ends, and written twice: at 4,000 tasks a second these wait for 0.25 s.
MOST = 1_000
MOST_BYTES = 32 * 1024 * 1024


class Pairing:
    """Holds tasks back, but only while ends keep coming: without workers nothing waits."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held: dict[TaskId, tuple[float, Item]] = {}  # since when
        self._bytes = 0
        self._heard_at = float("-inf")

    @property
    def full(self) -> bool:
        """True when no more tasks should be read before some of these have gone."""
        return len(self._held) >= MOST or self._bytes >= MOST_BYTES

    @property
    def held(self) -> list[Item]:
        """What waits."""
        return [item for _, item in self._held.values()]

    def due_in(self, now: float) -> float | None:
        """Seconds until something has waited long enough; None when nothing waits."""
        for since, _ in self._held.values():
            return max(0.0, since + HOLD - now)
        return None

    def ready(self, items: Iterable[Item], now: float) -> list[Item]:
        """What to write now of these and of what waits: tasks first, then what became of them.

        `now`: time.monotonic().
        """
        tasks: list[Item] = []
        others: list[Item] = []
        for item in items:
            (tasks if isinstance(item.message, SeenTask) else others).append(item)
        heard = [each.message.task_id for each in others if isinstance(each.message, HeardEvent)]
        if heard:
            self._heard_at = now
        released = self._released(now)
        if now - self._heard_at < HOLD:
            for item in tasks:
                self._hold(item, now, released)
            for task_id in heard:
                if task_id in self._held:
                    released.append(self._release(task_id))
        else:
            released += tasks
        return released + others

    def _hold(self, item: Item, now: float, released: list[Item]) -> None:
        assert isinstance(item.message, SeenTask)  # noqa: S101 - only those are given
        task_id = item.message.task_id
        if task_id in self._held:
            # A second message of it: the fold tells duplicates and conflicts, the first one first.
            released += [self._release(task_id), item]
        else:
            self._held[task_id] = (now, item)
            self._bytes += item.size

    def _released(self, now: float) -> list[Item]:
        """What has waited long enough; everything, where no ends come any more."""
        ends_come = now - self._heard_at < HOLD
        overdue = []
        for task_id, (since, _) in self._held.items():
            if ends_come and now - since < HOLD:
                break
            overdue.append(task_id)
        return [self._release(task_id) for task_id in overdue]

    def _release(self, task_id: TaskId) -> Item:
        _, item = self._held.pop(task_id)
        self._bytes -= item.size
        return item
