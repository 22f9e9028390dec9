"""What an agent forks in a worker never goes on as that worker.

A forked copy has the worker's event loop with everything in hand and its connections: it would run
the neighbours again, and its bytes to Redis would mix with the worker's own. So it ends as soon as
the agent's code in it comes back to us. What forks in order to run something else
(multiprocessing) does not come back.
"""

import os
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from orchestrator.runtime.witness import Step

EXIT_FORKED = 70  # EX_SOFTWARE

ResultT = TypeVar("ResultT")

_forks = 0  # between the first process and this one


def _count() -> None:
    global _forks  # noqa: PLW0603 - a process is one
    _forks += 1


os.register_at_fork(after_in_child=_count)


async def run_in_loop(work: Coroutine[Any, Any, ResultT], step: Step) -> ResultT:
    """The result; a copy that a step of `work` forks ends with that step."""
    return await _Watched(work, step)


def run_in_thread(work: Callable[[], ResultT]) -> ResultT:
    """The result; a copy that `work` forks ends here. Of a thread's copy the loop does not run."""
    mine = _forks
    try:
        return work()
    finally:
        _end_a_copy(mine)


class _Watched(Generic[ResultT]):
    """Passes on what a coroutine waits for; at each step it says whose it is, and sees where."""

    def __init__(self, work: Coroutine[Any, Any, ResultT], step: Step) -> None:
        self._work = work
        self._step = step

    def __await__(self) -> Generator[Any, Any, ResultT]:
        mine = _forks
        given: Any = None
        error: BaseException | None = None
        while True:
            self._step.begins()
            try:
                waits_for = self._work.send(given) if error is None else self._work.throw(error)
            except StopIteration as done:
                found: ResultT = done.value
                return found
            finally:
                _end_a_copy(mine)
                self._step.ended()
            given = error = None
            try:
                given = yield waits_for
            except BaseException as raised:  # noqa: BLE001 - it is the coroutine's
                error = raised
            _end_a_copy(mine)  # which another agent's step has forked


def _end_a_copy(mine: int) -> None:
    if _forks != mine:
        os._exit(EXIT_FORKED)
