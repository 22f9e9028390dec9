"""Orders a process to die at a named point, and waits until it has.

What the dying wrote is proof that it died there; the checker joins it with how the process ended.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from tests.faults.ground import Ground
from tests.faults.points import Order, Point

PASSAGES = 3  # a process dies at the first, second or third one
GIVE_UP = 60.0  # seconds; then the order was not met, and the run proves nothing
FEED = 0.3  # seconds between what is brought to a process that has not come by


@dataclass(frozen=True)
class Death:
    """What a process wrote just before it killed itself."""

    number: int
    point: str
    pid: int
    at: float  # time.time()


def read_deaths(path: Path) -> dict[int, Death]:
    """The deaths by the number of their order."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = [Death(**json.loads(line)) for line in lines]
    return {each.number: each for each in found}


def next_point(ground: Ground, points: Sequence[Point], rng: Random) -> Point:
    """One of those that were ordered least."""
    ordered = Counter(each.point for each in ground.orders)
    least = min(ordered[each.name] for each in points)
    return rng.choice([each for each in points if ordered[each.name] == least])


async def strike(
    ground: Ground, point: Point, rng: Random, *, feed: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Order a death, and wait until another process stands there. `feed` brings work meanwhile."""
    order = Order(len(ground.orders), point.name, rng.randint(1, PASSAGES))
    ground.orders.append(order)
    place = ground.order_of(point.role)
    written = place.with_suffix(".new")
    written.write_text(json.dumps(asdict(order)))
    written.replace(place)
    deadline = time.monotonic() + GIVE_UP
    fed = time.monotonic()
    while time.monotonic() < deadline:
        death = read_deaths(ground.deaths).get(order.number)
        if death and any(death.pid in slot.ends for slot in ground.slots):
            return
        if feed and not death and time.monotonic() - fed > FEED:
            await feed()
            fed = time.monotonic()
        await asyncio.sleep(0.02)
    place.unlink(missing_ok=True)
