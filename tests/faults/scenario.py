"""What a scenario says of itself, and what it is handed to break things with."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from orchestrator.agent import Agent
from orchestrator.task import Durability, TaskId
from tests.faults.agents import GOOD, Done, Job
from tests.faults.ground import Ground
from tests.faults.load import Load
from tests.faults.servers import Servers

EITHER = (Durability.DATABASE, Durability.STREAM)
DATABASE = (Durability.DATABASE,)
Told = Mapping[str, int | Mapping[str, float]]


@dataclass(frozen=True)
class Scene:
    """Everything that a fault can reach. `rng` is the faults' own, from the seed."""

    ground: Ground
    load: Load
    rng: Random


@dataclass
class Noticed:
    """What a scenario saw beside the faults: what is wrong, by kind, and what is only told."""

    wrong: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)


class Scenario(ABC):
    """One way to break it. The pause between faults is random, `pause` seconds from and to."""

    name: ClassVar[str]
    breaks: ClassVar[str]
    guards: ClassVar[tuple[str, ...]]  # without any of them it must turn red (teeth.py)
    tasks: ClassVar[int] = 2_000
    faults: ClassVar[int] = 40
    pause: ClassVar[tuple[float, float]] = (0.3, 1.2)
    lasts: ClassVar[float] = 0.0  # seconds that a fault itself takes, which the load goes on for
    workers: ClassVar[int] = 3
    recorders: ClassVar[int] = 1
    apis: ClassVar[int] = 0
    schedulers: ClassVar[int] = 0
    load: ClassVar[type[Load]] = Load
    durabilities: ClassVar[tuple[Durability, ...]] = DATABASE
    # Each process as on a machine of its own: nobody sees another's end, and the lease decides.
    apart: ClassVar[bool] = False
    servers: ClassVar[type[Servers]] = Servers
    asks_again: ClassVar[bool] = False  # what was refused is submitted again, the same tasks
    longest: ClassVar[float] = 1.0  # seconds that a task takes, at most
    batch: ClassVar[int] = 20  # tasks a submission, at most
    agents: ClassVar[tuple[type[Agent[Job, Done]], ...]] = GOOD
    environment: ClassVar[Mapping[str, str]] = {}  # on top of everybody's, for the processes
    delayed: ClassVar[float] = 0.0  # share of the tasks that are to run up to 2 s later
    mounts: ClassVar[bool] = False  # needs a user who may mount
    # Seconds on top of three leases until everything has ended, with the reason beside it.
    patience: ClassVar[float] = 0.0

    async def prepare(self, scene: Scene) -> None:
        """Before the load and the first fault."""
        del scene

    @abstractmethod
    async def inject(self, scene: Scene) -> None:
        """One fault, from its beginning to its end."""

    async def settle(self, scene: Scene) -> None:
        """After the last fault, before it is counted what must still end."""
        del scene

    async def strangers(self, scene: Scene) -> frozenset[TaskId]:
        """Tasks that nobody submitted, and that `wrong` answers for in the checker's place."""
        del scene
        return frozenset()

    @contextlib.asynccontextmanager
    async def beside(self, scene: Scene) -> AsyncIterator[Noticed]:
        """What runs for as long as the faults do; its findings are complete when it is left."""
        yield Noticed()

    async def told(self, scene: Scene) -> Told:
        """Figures of its own for the verdict, once everything has healed."""
        return {}

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        """Findings of its own, beside the checker's."""
        return {}
