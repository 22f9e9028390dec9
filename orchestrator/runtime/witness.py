"""Whose code the event loop runs at this moment, in memory that others can read once we are dead.

Code that ends its process in the middle of a step says no last word, and code that holds the loop
lets nobody speak. So before each step its task's name is put down, and taken away behind it. A name
that stands when a process dies is no proof (a SIGKILL meets whoever runs), but reason enough to
start that task in a process of its own the next time. No name is no proof either: threads, and what
an agent starts beside its own coroutine, are not seen.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.streams.neighbours import NAME, Memory
from orchestrator.task import TaskId


class Step(NamedTuple):
    """What is put down before a step of one task's code, and where."""

    memory: Memory
    name: bytes

    def begins(self) -> None:
        """The code of this task runs from now on."""
        self.memory[:NAME] = self.name

    def ended(self) -> None:
        """It does not any more."""
        self.memory[0] = 0


@dataclass(frozen=True, slots=True)
class Witness:
    """One per worker. Written by the main loop alone."""

    memory: Memory = field(default_factory=lambda: bytearray(NAME))

    def step_of(self, task_id: TaskId) -> Step:
        """The steps of this task."""
        return Step(self.memory, task_id.encode().ljust(NAME, b"\0")[:NAME])

    @property
    def holder(self) -> TaskId | None:
        """Whose step has not ended; any thread may ask."""
        said = bytes(self.memory[:NAME])
        return said.decode("ascii", "replace") if said[0] else None
