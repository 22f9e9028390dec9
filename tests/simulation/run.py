"""Runs a seed: submits, breaks, heals, and judges."""

import asyncio
import gc
import logging
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.simulation.agents import NOTES
from tests.simulation.cast import modelled, settings_of
from tests.simulation.checks import judge, left_over
from tests.simulation.faults import FAULTS
from tests.simulation.load import add_schedules, submit
from tests.simulation.virtual import VirtualLoop
from tests.simulation.world import Surprises, World

PLACES = ("worker-0", "worker-1", "recorder-0")
SCHEDULED = 0.25  # the probability of schedules, and of two schedulers
SCHEDULERS = ("scheduler-0", "scheduler-1")
MORE = 0.25  # the probability of each
ALSO = ("worker-2", "recorder-1")  # in some seeds
FAULTY = 3.5  # seconds with faults
TASKS = 8
# Seconds after the last fault: three leases, the hold of a reconciler that was killed (10 s), the
# back-off of three failures (7 s), and the runs themselves (5 s each).
HEAL = 45.0
LATE = 1.0  # seconds in which a late end would still come in
# Then, for what a recorder that was killed had in hand: a lease, and two of the reader's sweeps.
SETTLE = 5.0


@dataclass(frozen=True)
class Verdict:
    """What a seed has come to."""

    seed: int
    faults: tuple[str, ...]
    wrong: Sequence[str]
    accepted: int
    starts: int
    seconds: float  # of virtual time
    healed: float  # seconds after the last fault
    log: Sequence[str]
    trace: str  # the same whenever the seed is run


def simulate(seed: int, *, faults: Sequence[str] | None = None) -> Verdict:
    """One simulation. `faults`: instead of those that the seed chooses."""
    rng = random.Random(f"{seed}:plan")
    chosen = tuple(faults) if faults is not None else _chosen(rng)
    loop = VirtualLoop()
    try:
        with modelled(loop, rng):
            return loop.run_until_complete(_run(seed, chosen, rng, loop))
    finally:
        loop.close()


def simulate_many(seeds: range, faults: Sequence[str] | None = None) -> Iterator[Verdict]:
    """Each seed, in its order, on all cores."""
    with ProcessPoolExecutor(initializer=gc.disable) as pool:
        share = max(1, len(seeds) // 250)  # of a process at a time: half a second
        yield from pool.map(partial(_simulate_and_tidy, faults=faults), seeds, chunksize=share)


def _simulate_and_tidy(seed: int, *, faults: Sequence[str] | None) -> Verdict:
    """Looking for garbage while a seed runs would take a sixth of its time."""
    verdict = simulate(seed, faults=faults)
    gc.collect()
    gc.freeze()  # what is left is the program's
    return verdict


def _chosen(rng: random.Random) -> tuple[str, ...]:
    return tuple(sorted(rng.sample(list(FAULTS), rng.choice([0, 1, 1, 2, 3, 4]))))


async def _run(
    seed: int, chosen: tuple[str, ...], rng: random.Random, loop: VirtualLoop
) -> Verdict:
    world = World(seed, settings_of(rng), loop)
    NOTES.set(world.notes)
    surprises = Surprises(world)
    logging.getLogger("aurora").addHandler(surprises)
    beside = [asyncio.create_task(world.supervise())]
    if "lose_power" in chosen:
        beside.append(asyncio.create_task(world.redis.remember()))
    for place in (*PLACES, *(each for each in ALSO if rng.random() < MORE)):
        world.start(place)
    if rng.random() < SCHEDULED:
        add_schedules(world, rng)
        for place in SCHEDULERS:
            world.start(place)
    await asyncio.sleep(0.5)
    asking = asyncio.create_task(submit(world, TASKS, FAULTY - 1, random.Random(f"{seed}:load")))
    if chosen:
        await _break(world, chosen)
    await asking
    world.heal()
    last_fault = loop.time()
    await world.healed(until=last_fault + HEAL + world.backwards)
    healed = loop.time() - last_fault
    await asyncio.sleep(LATE)
    await _settled(world, until=loop.time() + SETTLE)
    verdict = Verdict(
        seed=seed, faults=chosen, wrong=judge(world, quiet=not chosen),
        accepted=len(world.ledger.accepted), starts=len(world.notes.starts),
        seconds=loop.time(), healed=healed, log=world.log, trace=world.redis.trace.hexdigest(),
    )  # fmt: skip
    world.end()
    logging.getLogger("aurora").removeHandler(surprises)
    for task in beside:
        task.cancel()
    await loop.clean_up()
    return verdict


async def _settled(world: World, *, until: float) -> None:
    """Wait until nothing is in anybody's hand, or for so long: a judgement that comes too early."""
    while world.loop.time() < until and any(left_over(world)):  # noqa: ASYNC110 - time is virtual
        await asyncio.sleep(0.25)


async def _break(world: World, chosen: Sequence[str]) -> None:
    until = world.loop.time() + FAULTY
    under_way: set[asyncio.Task[None]] = set()
    while world.loop.time() < until:
        await asyncio.sleep(world.rng.uniform(0.15, 1.2))
        name = world.rng.choice(chosen)
        task = asyncio.ensure_future(FAULTS[name](world))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    if under_way:
        await asyncio.wait(under_way)
