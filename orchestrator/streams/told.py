"""What a live feed tells, and what of it a process remembers: for clients that come back.

Each memory is bounded, and what is not in it is read again from the stream or the record.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from orchestrator.streams.position import EntryId, Position

T = TypeVar("T")

# Of JSON that was read once and is kept, some 7,000 alerts: a minute of a hundred a second.
READ_BYTES = 8 * 1024 * 1024
RECENT = 10_000  # values whose first entry is remembered, about 2 MB


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What an entry says, and under which name it is one thing, however often it was written."""

    id: str
    value: T
    body: str  # as JSON, made once for all clients


# Told apart as objects, so that what is made of one for a client is had for the next.
@dataclass(frozen=True, slots=True, eq=False)
class LiveMessage(Generic[T]):
    """One entry, read; `position` is where to go on after it."""

    source: str
    entry_id: EntryId
    position: Position
    reading: Reading[T]
    texts: dict[str, str] = field(default_factory=dict)  # as clients get it, made for the first


class Lately(Generic[T]):
    """The last messages of a tail, in its order, and from which position on they are all here.

    When a process was held up, all of its clients come back at once, each from another place: from
    here that costs a copy, from the stream a read of the same entries for each of them.
    """

    def __init__(self, since: Position) -> None:
        """Empty: everything after `since` will be told to `keep`."""
        self._since = since
        self._bytes = 0
        self._kept: deque[LiveMessage[T]] = deque()

    def keep(self, message: LiveMessage[T]) -> None:
        """The next one; the oldest go where it is too much."""
        self._kept.append(message)
        self._bytes += len(message.reading.body)
        while self._bytes > READ_BYTES:
            gone = self._kept.popleft()
            self._bytes -= len(gone.reading.body)
            self._since = gone.position

    def reaches(self, at: Position) -> bool:
        """True where everything after this position is here."""
        return all(at[name] >= first for name, first in self._since.ids.items())

    def after(self, at: Position, wants: Callable[[T], bool]) -> list[LiveMessage[T]]:
        """What is wanted of everything after a position that this reaches, in order."""
        return [
            each
            for each in self._kept
            if each.entry_id > at[each.source] and wants(each.reading.value)
        ]


class Readings(Generic[T]):
    """The entries that were read last, as far as there is room."""

    def __init__(self) -> None:
        """Empty."""
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str], Reading[T]] = OrderedDict()

    def get(self, source: str, entry_id: str) -> Reading[T] | None:
        """What this entry says, if it is kept."""
        return self._kept.get((source, entry_id))

    def keep(self, source: str, entry_id: str, reading: Reading[T]) -> None:
        """Keep it, and drop the oldest where it is too much."""
        self._kept[source, entry_id] = reading
        self._bytes += len(reading.body)
        while self._bytes > READ_BYTES:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= len(gone.body)


class Recent:
    """Where the latest values stood first, so that one that was written twice is told once.

    Bounded: a second copy is known for what it is within `most` values of the first.
    """

    def __init__(self, most: int = RECENT) -> None:
        """Empty."""
        self._most = most
        self._first: OrderedDict[str, tuple[EntryId, str]] = OrderedDict()

    def is_first(self, id: str, source: str, entry_id: EntryId) -> bool:  # noqa: A002 - the wire's word
        """True for the first entry of this id, as often as it is asked about."""
        at = (entry_id, source)
        known = self._first.get(id)
        if known is not None and known <= at:
            return known == at
        # One from before all that this process has read counts as well.
        self._first[id] = at
        if len(self._first) > self._most:
            self._first.popitem(last=False)
        return True
