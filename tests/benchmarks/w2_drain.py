"""W2: a backlog of no-op tasks until every result, state and audit event is in Postgres."""

from tests.benchmarks import backlog
from tests.benchmarks.case import Case, Sizes
from tests.benchmarks.drain import Drained, drained
from tests.benchmarks.figures import Sample
from tests.benchmarks.ground import Ground
from tests.benchmarks.peers import running

RAW = "W2 raw loop"


def cases(sizes: Sizes, *, peers: bool) -> list[Case]:
    """One worker, two, the raw loop, rows that are there already, and the peers."""

    async def one(ground: Ground) -> list[Sample]:
        return await _aurora(ground, sizes.drain, workers=1)

    async def two(ground: Ground) -> list[Sample]:
        return await _aurora(ground, sizes.drain, workers=2)

    async def accepted(ground: Ground) -> list[Sample]:
        return await _aurora(ground, sizes.drain, workers=1, rows=True)

    async def raw(ground: Ground) -> list[Sample]:
        return await _raw(ground, sizes.drain)

    found = [
        Case("W2 drain, raw loop", raw),
        Case("W2 drain, 1 worker", one),
        Case("W2 drain, 2 workers", two),
        Case("W2 drain, rows there already", accepted),
    ]
    return found + (running.drain_cases(sizes) if peers else [])


async def _aurora(ground: Ground, tasks: int, *, workers: int, rows: bool = False) -> list[Sample]:
    await ground.clean()
    if rows:
        await backlog.accept(ground, tasks)
    else:
        await backlog.publish(ground, tasks)

    async def start() -> None:
        await ground.role("recorder")
        for _ in range(workers):
            await ground.role("worker")

    found = await drained(ground, tasks, start=start)
    what = f"aurora, {workers} worker{'s' if workers > 1 else ''}"
    return samples(found, f"{what}, rows there already" if rows else what, cpu=not rows)


async def _raw(ground: Ground, tasks: int) -> list[Sample]:
    await ground.clean()
    await backlog.publish(ground, tasks)

    async def start() -> None:
        await ground.start("recorder", "tests.benchmarks.raw", "recorder")
        await ground.start("worker", "tests.benchmarks.raw", "worker")

    return samples(await drained(ground, tasks, start=start), "raw loop", cpu=True)


def samples(found: Drained, what: str, *, cpu: bool) -> list[Sample]:
    """The rate, and where the CPU went."""
    rate = Sample("W2", what, found.rate, "tasks/s", of=RAW)
    if not cpu:
        return [rate]
    spent = [
        Sample("W2", f"CPU of {name}, {what}", micros, "µs/task", of=f"W2 CPU of {name}, raw loop")
        for name, micros in found.cpu.items()
    ]
    return [rate, *spent]
