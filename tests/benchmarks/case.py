"""One measurement of a workload, and how large the workloads are."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.benchmarks.figures import Sample
from tests.benchmarks.ground import Ground

Measure = Callable[[Ground], Awaitable[list[Sample]]]


@dataclass(frozen=True, slots=True)
class Case:
    """Measured once a round, in turn with all others; `rounds`: no more than so many."""

    name: str
    measure: Measure
    rounds: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything; counts of tasks unless said otherwise."""

    drain: int = 20_000
    one_by_one: int = 2_000
    bulk: int = 20_000
    latency: int = 1_000
    waiting: int = 2_000
    idle: float = 15.0  # seconds
    memory_drain: int = 100_000
    backlogs: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    sustained: int = 50_000  # at least so many in all, in several goes of a small backlog
    payloads: tuple[tuple[int, int], ...] = ((1, 10_000), (16, 4_000), (128, 600))  # KB, tasks
    rows: int = 1_000_000
    queries: int = 40
    taskiq_drain: int = 8_000


FULL = Sizes()
QUICK = Sizes(
    drain=5_000,
    one_by_one=400,
    bulk=5_000,
    latency=300,
    waiting=1_000,
    idle=4.0,
    memory_drain=10_000,
    backlogs=(1_000, 10_000),
    sustained=0,
    payloads=((1, 2_000), (16, 500), (128, 60)),
    rows=30_000,
    queries=15,
    taskiq_drain=2_000,
)
