"""One gate a provider key, for the whole fleet: after a refusal nobody calls, then one by one.

Nothing is known of a provider until it refuses, and nothing is slowed down. A refusal closes the
gate for all until it said, and teaches a pace: what was let in, over the time until its reset. From
then on calls begin evenly spaced, which fixed windows, sliding ones and token buckets all accept.
Headers that tell what is left are shared out over the time until the reset.

All of it is one hash a provider in Redis (`scripts/gated.lua` names its fields), forgotten after an
hour without a call; when Redis loses it, it is learned again.
"""

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from orchestrator.errors import Unavailable as ServerUnavailable
from orchestrator.provider import Answered, Limited, News, Place, Unavailable
from orchestrator.streams.channel import Part
from orchestrator.streams.connection import Streams, translated

logger = logging.getLogger("aurora.gates")

EXACT = 5.0  # seconds: whose turn is sooner comes at it; the others look again half-way
MOST = 30.0  # seconds between two looks
ABSENT = 60.0  # seconds without a question: nobody waits, as in `admit.lua`
ABSURD = 1e9  # seconds
WITHOUT_REDIS = 1.0  # seconds until the next try


class Gates:
    """Says when a call may begin, and hears what it came to. Calls nobody, and keeps nobody's key.

    A caller that waits and dies costs its slot, no more.
    """

    def __init__(self, streams: Streams, *, jitter: Callable[[], float] = random.random) -> None:
        """Store."""
        self.streams = streams
        self._jitter = jitter
        self._away = False

    async def admit(self, provider: str, place: Place | None = None) -> float:
        """Seconds to wait and then ask again with the same place; 0.0: the call begins.

        Who has no place is new each time, and stands at the end of the queue. While Redis is away
        nobody knows, so everybody waits, about a second at a time; the caller's patience ends it.
        """
        place = place or Place()
        try:
            wait, place.number, place.closings = await self.streams.run(
                "admit", [self.streams.keys.gate(provider)], [place.number]
            )
        except ServerUnavailable as error:
            self._missed(provider, error)
            return WITHOUT_REDIS * (1 + self._jitter())
        self._away = False
        return again_after(wait / 1e6, self._jitter())

    async def tell(self, provider: str, news: News, place: Place | None = None) -> None:
        """What the call came to; the place it was admitted with. Lost while Redis is away."""
        closings = place.closings if place else -1
        keys = [self.streams.keys.gate(provider), self.streams.keys.gates]
        try:
            closed = await self.streams.run("tell", keys, [*_told(news, provider, closings)])
        except ServerUnavailable as error:
            self._missed(provider, error)
            return
        self._away = False
        if closed:
            logger.warning(
                "%s: %s; its calls wait", provider, _reason(news),
                extra={"event": "provider.closed", "provider": provider},
            )  # fmt: skip

    def _missed(self, provider: str, error: ServerUnavailable) -> None:
        if not self._away:
            logger.warning(
                "calls of %s wait, or are not counted: %s", provider, error,
                extra={"event": "provider.gate_unavailable", "provider": provider},
            )  # fmt: skip
        self._away = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFigures:
    """The gate of a provider that has refused within the last hour."""

    provider: str
    closed: float  # seconds until it opens; 0: it is open
    waiting: int  # calls, those of killed workers for a while, too
    pace: float | None  # requests a second that it lets in; None: all


async def read(streams: Streams) -> list[GateFigures]:
    """Every gate that has closed within the last hour. Raises Unavailable."""
    with translated():
        names = sorted(
            each.decode() for each in await streams.commands.smembers(streams.keys.gates)
        )
        if not names:
            return []
        pipe = streams.commands.pipeline(transaction=False)
        pipe.time()
        for name in names:
            pipe.hmget(streams.keys.gate(name), *_READ)
        (seconds, microseconds), *gates = await pipe.execute()
        now = seconds + microseconds / 1e6
        found = []
        for name, values in zip(names, gates, strict=True):
            at, until, issued, served, pace = (float(each or 0) for each in values)
            if not at:
                await streams.commands.srem(streams.keys.gates, name)
                continue
            figures = GateFigures(
                provider=name,
                closed=max(0.0, until - now),
                waiting=int(issued - served) if now - at < ABSENT else 0,
                pace=pace or None,
            )
            found.append(figures)
    return found


_READ = ("at", "closed_until", "issued", "served", "pace")


def again_after(turn: float, jitter: float) -> float:
    """When to ask again for a turn in so many seconds; `jitter` is from 0 to 1.

    3 s: in 3 s. 10 s: in 5 to 4 s. 40 s: in 20 to 16 s, as the queue may be shorter than it seems
    (who waited in it may have died). An hour: in 30 to 24 s.
    """
    if turn <= EXACT:
        return turn
    return min(max(EXACT, turn / 2), MOST) * (1 - 0.2 * jitter)


def _told(news: News, provider: str, closings: int) -> tuple[Part, ...]:
    match news:
        case Answered(allowance=allowance):
            left: tuple[Part, Part] = ("", "")
            if allowance and _sane(allowance.resets_after) and allowance.remaining >= 0:
                left = (allowance.remaining, f"{allowance.resets_after:.6f}")
            return ("answered", provider, closings, "", *left)
        case Limited(retry_after=seconds):
            return ("limited", provider, closings, _seconds(seconds), "", "")
        case Unavailable(retry_after=seconds):
            return ("unavailable", provider, closings, _seconds(seconds), "", "")
        case _:
            assert_never(news)


def _seconds(said: float | None) -> str:
    return f"{said:.6f}" if said is not None and _sane(said) else ""


def _sane(seconds: float) -> bool:
    # What a provider says is a stranger's text: nan, -1 and 1e308 are among it.
    return math.isfinite(seconds) and 0 <= seconds < ABSURD


def _reason(news: News) -> str:
    said = news.retry_after if isinstance(news, Limited | Unavailable) else None
    what = "limits our requests" if isinstance(news, Limited) else "is not available"
    return f"{what}, and says to stay away for {said:g} s" if said else what
