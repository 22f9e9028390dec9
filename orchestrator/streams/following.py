"""Reads streams as they grow, without a group: what every plain tail has in common."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from orchestrator.errors import Overloaded, Unavailable
from orchestrator.streams.channel import Channel
from orchestrator.streams.connection import translated
from orchestrator.streams.consumer import BACKOFF, BLOCK
from orchestrator.streams.message import Fields, fields_of

PAGE = 1000  # entries a read of one stream


class Entry(NamedTuple):
    """One entry as it stands on its stream."""

    key: str
    entry_id: str
    fields: Fields


class Read(NamedTuple):
    """What one read gave; `unsure` where entries may have come and gone before it."""

    entries: list[Entry]
    unsure: bool


async def follow(
    reader: Channel, positions: dict[str, str], *, stopping: Callable[[], bool]
) -> AsyncGenerator[Read, None]:
    """Entries after `positions` (key -> entry id), which move along; outages are waited out.

    Ends within about a second of `stopping`. Never cancelled in the middle of a read: its reply
    would be taken for the next one's.
    """
    failures = 0
    while not stopping():
        try:
            with translated():
                reply = await reader.call(
                    "XREAD", "COUNT", PAGE, "BLOCK", int(BLOCK * 1000),
                    "STREAMS", *positions, *positions.values(),
                )  # fmt: skip
        except (Unavailable, Overloaded):
            await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])
            failures += 1
            continue
        found = [
            Entry(key.decode(), entry_id.decode(), fields_of(flat))
            for key, entries in reply or ()
            for entry_id, flat in entries
        ]
        for each in found:
            positions[each.key] = each.entry_id
        # After an outage, and where we lag: a trim, or another server's past, is possible.
        yield Read(found, unsure=failures > 0 or len(found) >= PAGE)
        failures = 0


def order(entry_id: str) -> tuple[int, int]:
    """An entry id as what it is, two numbers."""
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence or 0)
