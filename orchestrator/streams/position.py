"""Where a reader stands on several streams at once, as the text that clients keep and bring back.

`1764000000000-0/1763999999000-5`: an entry id for each stream, in the feed's order. A bare entry id
stands for the same moment on all of them, since one server gives every id by its clock.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from orchestrator.errors import MalformedMessage

_FORM = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_LARGEST = 2**64 - 1


class EntryId(NamedTuple):
    """An entry's id; two numbers, and in their order."""

    ms: int
    sequence: int

    @classmethod
    def of(cls, text: str) -> Self:
        """Read `ms-sequence` or `ms`. Raises MalformedMessage."""
        found = _FORM.fullmatch(text)
        ms, sequence = (int(part or 0) for part in found.groups()) if found else (-1, 0)
        if not (0 <= ms <= _LARGEST and sequence <= _LARGEST):
            raise MalformedMessage(f"{text[:50]!r} is no entry id; one reads 1764000000000-0")
        return cls(ms, sequence)

    def __str__(self) -> str:
        return f"{self.ms}-{self.sequence}"

    @property
    def before(self) -> "EntryId":
        """The last id that could stand before this one."""
        if self.sequence:
            return EntryId(self.ms, self.sequence - 1)
        return EntryId(self.ms - 1, _LARGEST) if self.ms else self


BEGINNING = EntryId(0, 0)


@dataclass(frozen=True, slots=True)
class Position:
    """The last entry of each stream that a reader has been through, by the stream's name."""

    ids: Mapping[str, EntryId]
    is_moment: bool = False  # one id for all, which need not be on each stream

    @classmethod
    def of(cls, text: str, names: Sequence[str]) -> Self:
        """Read what `str` wrote, or one entry id for all. Raises MalformedMessage."""
        parts = text.strip().split("/")
        if len(parts) not in {1, len(names)}:
            raise MalformedMessage(
                f"{text[:100]!r} is no position; send the `id` of the last message as it came"
            )
        found = [EntryId.of(part) for part in parts]
        ids = dict(zip(names, found * (len(names) // len(found)), strict=True))
        return cls(ids, is_moment=len(found) < len(names))

    def __str__(self) -> str:
        return "/".join(map(str, self.ids.values()))

    def __getitem__(self, name: str) -> EntryId:
        return self.ids[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def moved(self, name: str, entry_id: EntryId) -> "Position":
        """The same, further (or elsewhere) on one stream."""
        return Position({**self.ids, name: entry_id})

    def or_later(self, other: "Position") -> "Position":
        """The later of both, stream by stream; the other itself where it is nowhere behind."""
        if all(other[name] >= mine for name, mine in self.ids.items()):
            return other
        return Position({name: max(mine, other[name]) for name, mine in self.ids.items()})
