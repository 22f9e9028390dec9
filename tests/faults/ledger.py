"""What was asked for and accepted, outside of the system; and the starts that the agents noted.

The checker believes nothing else.
"""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.task import Task


@dataclass(frozen=True, slots=True)
class Asked:
    """A task as it was submitted."""

    task_id: str
    agent: str
    n: int


@dataclass(frozen=True, slots=True)
class Start:
    """A start that an agent noted."""

    task_id: str
    attempt: int
    pid: int
    at: float  # time.time()


class Ledger:
    """A file of lines. A submission counts as accepted once its line is on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, tasks: Iterable[Task]) -> None:
        """Before the submission: should its answer get lost, its tasks are no strangers."""
        self._write("asked", tasks, sync=False)

    def accept(self, tasks: Iterable[Task]) -> None:
        """After it was accepted."""
        self._write("accepted", tasks, sync=True)

    def read(self) -> tuple[dict[str, Asked], dict[str, Asked]]:
        """What was asked for, and what of it was accepted."""
        found: dict[str, dict[str, Asked]] = {"asked": {}, "accepted": {}}
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        for line in lines:
            for kind, tasks in json.loads(line).items():
                for task_id, agent, n in tasks:
                    # One object for both: there may be a million.
                    known = found["asked"].get(task_id)
                    asked = known or Asked(task_id, sys.intern(agent), n)
                    found[kind][asked.task_id] = asked
        return found["asked"], found["accepted"]

    def _write(self, kind: str, tasks: Iterable[Task], *, sync: bool) -> None:
        said = [[task.task_id, task.agent, task.input["n"]] for task in tasks]
        with self._path.open("a") as file:
            file.write(json.dumps({kind: said}) + "\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())


def read_starts(path: Path) -> list[Start]:
    """Every start that was noted; a line that a kill cut short is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        found.append(Start(said["id"], said["attempt"], said["pid"], said["at"]))
    return found
