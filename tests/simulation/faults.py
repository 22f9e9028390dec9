"""What can break in a simulation; each is one function, from the beginning of the fault to its end.

A seed takes a few of them only (swarm testing): all at once would hide what two of them do.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from orchestrator.streams.names import ORCHESTRATOR, RECORDER, Keys
from tests.simulation.redis_keys import RedisError
from tests.simulation.redis_server import Trouble
from tests.simulation.virtual import Process
from tests.simulation.world import World, data_of

Fault = Callable[[World], Awaitable[None]]
KEYS = Keys("aurora")


def _any(world: World, role: str = "") -> Process:
    places = [place for place in world.processes if place.startswith(role)]
    return world.processes[world.rng.choice(places)]


async def kill_worker(world: World) -> None:
    process = _any(world, "worker")
    world.say(f"SIGKILL {process.name}")
    process.kill()


async def kill_recorder(world: World) -> None:
    process = _any(world, "recorder")
    world.say(f"SIGKILL {process.name}")
    process.kill()


async def kill_scheduler(world: World) -> None:
    if not any(place.startswith("scheduler") for place in world.processes):
        return
    process = _any(world, "scheduler")
    world.say(f"SIGKILL {process.name}")
    process.kill()


async def stop(world: World) -> None:
    """SIGSTOP for longer than the lease, or shorter."""
    process = _any(world)
    seconds = world.rng.uniform(0.5, 6.0)
    world.say(f"SIGSTOP {process.name} for {seconds:.3f} s")
    process.stop()
    await asyncio.sleep(seconds)
    process.go_on()
    world.say(f"SIGCONT {process.name}")


@asynccontextmanager
async def _trouble(world: World, **what: float) -> AsyncIterator[None]:
    process = _any(world)
    seconds = world.rng.uniform(0.5, 6.0)
    world.say(f"{process.name} and Redis: {what} for {seconds:.3f} s")
    world.redis.trouble[process.name] = Trouble(**what)  # type: ignore[arg-type]
    await asyncio.sleep(seconds)
    world.redis.trouble.pop(process.name, None)
    yield


async def cut(world: World) -> None:
    """Nothing comes through, and nobody is told."""
    async with _trouble(world, cut=True):
        pass


async def lose_replies(world: World) -> None:
    async with _trouble(world, lose_replies=world.rng.uniform(0.05, 0.5)):
        pass


async def slow(world: World) -> None:
    async with _trouble(world, slow=world.rng.uniform(0.05, 1.0)):
        pass


async def break_connections(world: World) -> None:
    world.say("every connection to Redis breaks")
    for link in world.links():
        link.break_off()


async def restart_redis(world: World) -> None:
    seconds = world.rng.uniform(0.05, 3.0)
    world.say(f"Redis is away for {seconds:.3f} s")
    world.redis.crash()
    await asyncio.sleep(seconds)
    world.redis.start()


async def lose_power(world: World) -> None:
    seconds = world.rng.uniform(0.05, 1.0)
    world.say(f"Redis loses power, and what it wrote last; away for {seconds:.3f} s")
    world.forget()
    world.redis.lose_power()
    await asyncio.sleep(seconds)
    world.redis.start()


async def flush(world: World) -> None:
    world.say("FLUSHALL")
    world.forget()
    world.redis.command(b"FLUSHALL")


async def destroy_group(world: World) -> None:
    stream, group = world.rng.choice(
        [(KEYS.tasks, ORCHESTRATOR), (KEYS.tasks, RECORDER), (KEYS.results, RECORDER)]
    )
    world.say(f"XGROUP DESTROY {stream} {group}")
    if group == ORCHESTRATOR:
        world.forget()
    with contextlib.suppress(RedisError):  # there is no such stream just now
        world.redis.command(b"XGROUP", b"DESTROY", stream.encode(), group.encode())


async def trim(world: World) -> None:
    """Somebody else's XTRIM MAXLEN."""
    stream = world.rng.choice([KEYS.tasks, KEYS.results])
    world.say(f"XTRIM {stream}")
    with world.foreign():
        world.redis.command(b"XTRIM", stream.encode(), b"MAXLEN", b"%d" % world.rng.randint(0, 3))


async def duplicate(world: World) -> None:
    """Somebody publishes again what is on a stream."""
    stream = world.rng.choice([KEYS.tasks, KEYS.results]).encode()
    entries = world.redis.command(b"XRANGE", stream, b"-", b"+")
    with world.foreign():
        for _, fields in world.rng.sample(entries, min(len(entries), 5)):
            world.twice.add(data_of(fields)["task_id"])
            world.redis.command(b"XADD", stream, b"*", *fields)
    world.say(f"{min(len(entries), 5)} entries of {stream.decode()} are published again")


async def jump_redis(world: World) -> None:
    by = world.rng.choice([world.rng.uniform(-10, 10), world.rng.uniform(10, 4000)])
    world.say(f"Redis' clock jumps by {by:.3f} s")
    world.redis.skew += by
    world.backwards += max(0.0, -by)


async def jump_process(world: World) -> None:
    process = _any(world)
    process.skew = world.rng.uniform(-120, 120)
    world.say(f"{process.name}'s clock is off by {process.skew:.3f} s")


async def jump_postgres(world: World) -> None:
    by = world.rng.choice([world.rng.uniform(-3, 3), world.rng.uniform(3, 30)])
    world.say(f"Postgres' clock jumps by {by:.3f} s")
    world.postgres.skew += by


async def kill_postgres(world: World) -> None:
    seconds = world.rng.uniform(0.0, 3.0)
    world.say(f"Postgres is away for {seconds:.3f} s")
    world.postgres.crash()
    await asyncio.sleep(seconds)
    world.postgres.start()


async def ambiguous_commits(world: World) -> None:
    seconds = world.rng.uniform(0.5, 4.0)
    world.say(f"commits fail, or their answers are lost, for {seconds:.3f} s")
    world.postgres.fail, world.postgres.lose_answers = 0.3, 0.3
    await asyncio.sleep(seconds)
    world.postgres.fail = world.postgres.lose_answers = 0.0


async def slow_postgres(world: World) -> None:
    seconds = world.rng.uniform(0.5, 4.0)
    world.say(f"Postgres is slow for {seconds:.3f} s")
    world.postgres.slow = 1.0
    await asyncio.sleep(seconds)
    world.postgres.slow = 0.0


FAULTS: dict[str, Fault] = {
    each.__name__: each
    for each in (
        kill_worker, kill_recorder, kill_scheduler, stop, cut, lose_replies, slow,
        break_connections, restart_redis, lose_power, flush, destroy_group, trim, duplicate,
        jump_redis, jump_process, jump_postgres, kill_postgres, ambiguous_commits, slow_postgres,
    )
}  # fmt: skip
