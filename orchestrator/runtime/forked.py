"""What an agent forks in a worker never goes on as that worker.

A forked copy has the worker's event loop with everything in hand and its connections: it would run
the neighbours again, and its bytes to Redis would mix with the worker's own. So it ends as soon as
the agent's code in it comes back to us. What forks in order to run something else
(multiprocessing) does not come back.
"""

import os
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Generic, TypeVar

from orchestrator.runtime.witness import Step

EXIT_FORKED = 70  # EX_SOFTWARE

ResultT = TypeVar("ResultT")

_forks = 0  # between the first process and this one


def _count() -> None:
    global _forks  # noqa: PLW0603 - a process is one
    _forks += 1


os.register_at_fork(after_in_child=_count)


async def run_in_loop(
    work: Coroutine[Any, Any, ResultT],
    step: Step,
    *,
    limit: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
) -> ResultT:
    """The result; a copy that a step of `work` forks ends with that step.

    `limit` is entered when `work` first waits for something: on a step nothing can act before its
    end, and most short runs are one step.
    """
    watched = _Watched(work, step)
    if watched.is_done_after():
        return watched.result
    async with limit():
        return await watched


def run_in_thread(work: Callable[[], ResultT]) -> ResultT:
    """The result; a copy that `work` forks ends here. Of a thread's copy the loop does not run."""
    mine = _forks
    try:
        return work()
    except StopIteration as error:
        # What Python makes of it in a coroutine. A future refuses it: nobody would hear of the end.
        raise RuntimeError("run raised StopIteration") from error
    finally:
        _end_a_copy(mine)


class _Watched(Generic[ResultT]):
    """Takes a coroutine's steps; at each it says whose it is, and sees where it is.

    The first one is taken by a call, the others where this is awaited.
    """

    result: ResultT

    def __init__(self, work: Coroutine[Any, Any, ResultT], step: Step) -> None:
        self._work = work
        self._step = step
        self._mine = _forks
        self._waits_for: Any = None

    def is_done_after(self, given: Any = None, error: BaseException | None = None) -> bool:
        """Take a step with what it has waited for; True where it was the last."""
        self._step.begins()
        try:
            self._waits_for = self._work.send(given) if error is None else self._work.throw(error)
        except StopIteration as done:
            self.result = done.value
            return True
        finally:
            _end_a_copy(self._mine)
            self._step.ended()
        return False

    def __await__(self) -> Generator[Any, Any, ResultT]:
        given: Any = None
        error: BaseException | None = None
        while True:
            try:
                given, error = (yield self._waits_for), None
            except BaseException as raised:  # noqa: BLE001 - it is the coroutine's
                given, error = None, raised
            _end_a_copy(self._mine)  # which another agent's step has forked
            if self.is_done_after(given, error):
                return self.result


def _end_a_copy(mine: int) -> None:
    if _forks != mine:
        os._exit(EXIT_FORKED)
