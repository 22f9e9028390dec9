"""Closes many dead letters in one go: one after the other, until all are done or time is up.

Each is closed by the same function as a single one, with its own audit event. Whatever happens in
between, a letter is either closed or open, and what is open can be asked for again.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.api.problems import Problem
from orchestrator.db.letters import LetterClosed, LetterNotFound
from orchestrator.errors import Overloaded, Rejected, Unavailable

PATIENCE = 20.0  # seconds; a proxy gives an answer up after 60, often after 30
MOST_AT_ONCE = 10_000  # letters


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """How far it came. What somebody else has closed meanwhile is in none of the counts."""

    done: int
    refused: int  # still open: the message cannot be said again
    left: int  # still open: time was up, or a server did not answer


async def close_all(
    letter_ids: Sequence[str],
    close: Callable[[str], Awaitable[Any]],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Closed:
    """Close each. `clock` in seconds. Does not raise for a letter that cannot be closed."""
    done = refused = 0
    until = clock() + PATIENCE
    for tried, letter_id in enumerate(letter_ids):
        if clock() >= until:
            return Closed(done=done, refused=refused, left=len(letter_ids) - tried)
        try:
            await close(letter_id)
        except (LetterClosed, LetterNotFound):
            continue
        except (Problem, Rejected):
            refused += 1
        except (Unavailable, Overloaded):
            return Closed(done=done, refused=refused, left=len(letter_ids) - tried)
        else:
            done += 1
    return Closed(done=done, refused=refused, left=0)
