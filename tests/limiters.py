"""Providers' limiters as they are found in the field, in virtual time, and callers at our gate.

The gate's scripts run in the real Redis; only their clock is the simulation's.
"""

import hashlib
import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from orchestrator.provider import Allowance, Answered, Limited, News, Place, Unavailable
from orchestrator.streams.channel import Part
from orchestrator.streams.connection import Streams, _source
from orchestrator.streams.gates import Gates

BEGAN = 1_700_000_000.0  # seconds since 1970


class Limiter(Protocol):
    """Takes a request at `now`, or says how long to stay away."""

    def ask(self, now: float) -> News: ...


@dataclass
class FixedWindow:
    """So many a window by the clock; the first began before we came."""

    limit: int
    seconds: float
    into: float = 0.0  # seconds of the first window that are gone
    retry_after: bool = True
    headers: bool = False
    window: int = -1
    used: int = 0

    def ask(self, now: float) -> News:
        at = now - BEGAN + self.into
        window, left = int(at // self.seconds), self.seconds - at % self.seconds
        if window != self.window:
            self.window, self.used = window, 0
        if self.used >= self.limit:
            return Limited(retry_after=left if self.retry_after else None)
        self.used += 1
        allowance = Allowance(remaining=self.limit - self.used, resets_after=left)
        return Answered(allowance=allowance if self.headers else None)


@dataclass
class SlidingWindow:
    """So many in any window of time."""

    limit: int
    seconds: float
    retry_after: bool = True
    taken: deque[float] = field(default_factory=deque)

    def ask(self, now: float) -> News:
        while self.taken and self.taken[0] <= now - self.seconds:
            self.taken.popleft()
        if len(self.taken) >= self.limit:
            left = self.taken[0] + self.seconds - now
            return Limited(retry_after=left if self.retry_after else None)
        self.taken.append(now)
        return Answered()


@dataclass
class TokenBucket:
    """So many at once, and then as they are filled up: OpenAI's and Anthropic's."""

    limit: int
    seconds: float
    retry_after: bool = True
    headers: bool = False
    tokens: float = -1.0
    at: float = 0.0

    def ask(self, now: float) -> News:
        if self.tokens < 0:
            self.tokens, self.at = float(self.limit), now
        rate = self.limit / self.seconds
        self.tokens, self.at = min(self.limit, self.tokens + (now - self.at) * rate), now
        if self.tokens < 1:
            left = (1 - self.tokens) / rate
            return Limited(retry_after=left if self.retry_after else None)
        self.tokens -= 1
        full = (self.limit - self.tokens) / rate
        allowance = Allowance(remaining=int(self.tokens), resets_after=full)
        return Answered(allowance=allowance if self.headers else None)


@dataclass
class Outage:
    """Answers, but for a time in which nobody does."""

    begins: float
    ends: float
    retry_after: float | None = None

    def ask(self, now: float) -> News:
        if self.begins <= now - BEGAN < self.ends:
            return Unavailable(retry_after=self.retry_after)
        return Answered()


class Timed(Streams):
    """The door to Redis, whose scripts see the simulation's clock."""

    now = BEGAN

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Part]) -> Any:
        source = _source(script)
        clock = "local time = redis.call('TIME')"
        assert clock in source
        self._scripts[script] = source.replace(clock, "local time = {ARGV[#ARGV], 0}")
        self._digests[script] = hashlib.sha1(
            self._scripts[script].encode(), usedforsecurity=False
        ).hexdigest()
        return await super().run(script, keys, [*args, f"{self.now:.6f}"])


@dataclass(frozen=True)
class Call:
    """What became of one caller, in seconds from the beginning."""

    came: float
    begun: float
    asked: int  # times at the gate
    refused: tuple[float, ...]


async def simulate(
    gates: Gates,
    limiter: Limiter,
    comes: Sequence[float],
    *,
    seconds: Callable[[], float],
    refusing: float = 0.02,
    dies: Callable[[int], bool] = lambda _: False,
    until: float = 3_600.0,
    provider: str = "p",
    places: bool = True,
) -> list[Call]:
    """Callers that come at these seconds, until each has its answer, or `until`.

    A call lasts `seconds()`, a refusal `refusing`. Who `dies` does so in the queue, at its first
    return.
    """
    streams = gates.streams
    assert isinstance(streams, Timed)
    done: list[Call] = []
    # At, a number that makes order certain, who, what he waits for.
    due: list[tuple[float, int, int, News | None]] = []
    for who, at in enumerate(comes):
        heapq.heappush(due, (BEGAN + at, len(due), who, None))
    pushed = len(due)
    place = [Place() for _ in comes]
    asked, refused = [0] * len(comes), [list[float]() for _ in comes]
    begun = [0.0] * len(comes)
    while due and due[0][0] - BEGAN < until:
        streams.now, _, who, news = heapq.heappop(due)
        if news is None:
            if asked[who] == 1 and dies(who):
                continue
            asked[who] += 1
            wait = await gates.admit(provider, place[who] if places else None)
            if wait:
                at, news = streams.now + wait + 0.001, None
            else:
                news = limiter.ask(streams.now)
                begun[who] = streams.now - BEGAN
                at = streams.now + (seconds() if isinstance(news, Answered) else refusing)
        else:
            await gates.tell(provider, news, place[who] if places else None)
            if isinstance(news, Answered):
                done.append(Call(comes[who], begun[who], asked[who], tuple(refused[who])))
                continue
            refused[who].append(streams.now - BEGAN)
            place[who] = Place()
            at, news = streams.now, None
        heapq.heappush(due, (at, pushed, who, news))
        pushed += 1
    return done


def busy(random: Random, *, mean: float) -> Callable[[], float]:
    """How long calls last: as long as they like, at most ten times the mean."""
    return lambda: min(random.expovariate(1 / mean), 10 * mean)
