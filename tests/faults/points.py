"""Named points in the code at which a process of a fault run kills itself when it is told to.

Only `role.py` wraps them, in the processes of a run: the product has no switch for it. Scenarios
choose among them (`orders.py`).
"""

import inspect
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce, wraps
from importlib import import_module
from pathlib import Path
from typing import Any

ORDERS = "FAULTS_ORDERS"  # the variable that names the file with this role's order
DEATHS = "FAULTS_DEATHS"  # the variable that names the file of those who obeyed


@dataclass(frozen=True)
class Point:
    """Before or after a function, passed whenever that is given something to do."""

    name: str
    role: str
    target: str  # "module:Class.function"
    after: bool = False


RECORDER = tuple(
    Point(f"recorder: {name}", "recorder", f"orchestrator.{target}", after)
    for name, target, after in (
        ("before it reads", "services.recorder:Recorder._next", False),
        ("read, not written", "services.recorder:Recorder._write", False),
        ("written, not committed", "db.recording:write", True),
        ("committed, not acknowledged", "services.recorder:Recorder._write", True),
        ("acknowledged", "services.recorder:Recorder._acknowledge", True),
    )
)
# `published_at` is not the reconciler's to set: the recorder does, when it reads the message.
RECONCILER = tuple(
    Point(f"reconciler: {name}", "recorder", f"orchestrator.{target}", after)
    for name, target, after in (
        ("looked, not published", "services.reconciler:Reconciler._bring_on", False),
        ("forgotten, not published", "streams.arbiter:Arbiter.forget", True),
        ("published, not audited", "streams.publisher:Publisher.publish_many", True),
    )
)
WORKER = tuple(
    Point(f"worker: {name}", "worker", f"orchestrator.{target}", after)
    for name, target, after in (
        ("taken, not begun", "runtime.dispatcher:Dispatcher._begin", False),
        ("begun, not run", "runtime.dispatcher:Dispatcher._fly", False),
        ("progress told, still running", "runtime.voice:Voice.progress", True),
        ("run, not completed", "runtime.completion:Completion._finish", False),
        ("completed, answer not used", "runtime.completion:Completion._finish", True),
    )
)
PROMOTER = (
    Point("promoter: before it moves", "worker", "orchestrator.services.promoter:Promoter.sweep"),
    Point("promoter: moved", "worker", "orchestrator.services.promoter:Promoter.sweep", after=True),
)
COMMITTED = Point(
    "api: committed, not published",
    "api",
    "orchestrator.runtime.submitter:TaskSubmitter._publish",
)
API = (
    Point("api: asked, not committed", "api", "orchestrator.db.tasks:TaskStore.accept_new"),
    COMMITTED,
    Point("api: published, not answered", "api", COMMITTED.target, after=True),
)
SCHEDULER = tuple(
    Point(f"scheduler: {name}", "scheduler", f"orchestrator.{target}", after)
    for name, target, after in (
        ("due, no tick inserted", "db.ticks:decide", False),
        ("tick inserted, its task not", "db.ticks:accept", False),
        ("decided, not committed", "db.ticks:decide", True),
        ("committed, not published", "services.scheduler:Scheduler._publish", False),
        ("published", "runtime.submitter:TaskSubmitter.publish_accepted", True),
    )
)
POINTS = (*RECORDER, *RECONCILER, *WORKER, *PROMOTER, *API, *SCHEDULER)


@dataclass(frozen=True)
class Order:
    """Die at the n-th passage of this point, counted from the order on, if you are the first."""

    number: int
    point: str
    passage: int


class Obedience:
    """Watches the points of one process, and ends it where its order says so."""

    def __init__(self, orders: Path, deaths: Path) -> None:
        """Store."""
        self._orders = orders
        self._deaths = deaths
        self._passages: Counter[int] = Counter()

    def watch(self, role: str) -> None:
        """Wrap every point of this role."""
        for point in POINTS:
            if point.role == role:
                module, _, path = point.target.partition(":")
                *owners, name = path.split(".")
                owner = reduce(getattr, owners, import_module(module))
                setattr(owner, name, self._wrapped(getattr(owner, name), point))

    def _wrapped(self, function: Callable[..., Any], point: Point) -> Callable[..., Any]:
        def passes(args: tuple[Any, ...], *, after: bool) -> None:
            # What it is given stands behind `self` or the connection.
            if point.after is after and (len(args) == 1 or args[1]):
                self._pass(point)

        if not inspect.iscoroutinefunction(function):

            @wraps(function)
            def passed_at_once(*args: Any, **options: Any) -> Any:
                passes(args, after=False)
                found = function(*args, **options)
                passes(args, after=True)
                return found

            return passed_at_once

        @wraps(function)
        async def passed(*args: Any, **options: Any) -> Any:
            passes(args, after=False)
            found = await function(*args, **options)
            passes(args, after=True)
            return found

        return passed

    def _pass(self, point: Point) -> None:
        try:
            order = Order(**json.loads(self._orders.read_text()))
        except FileNotFoundError:
            return
        if order.point != point.name:
            return
        self._passages[order.number] += 1
        if self._passages[order.number] == order.passage:
            self._die(order)

    def _die(self, order: Order) -> None:
        try:
            self._orders.unlink()
        except FileNotFoundError:
            return  # another process of this role has been there before
        said = {"number": order.number, "point": order.point, "pid": os.getpid(), "at": time.time()}
        # O_APPEND: the line is whole, and in the file before the next instruction.
        with self._deaths.open("a") as file:
            file.write(json.dumps(said) + "\n")
        os.kill(os.getpid(), signal.SIGKILL)
