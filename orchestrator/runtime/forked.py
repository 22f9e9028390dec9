"""What an agent forks in a worker never goes on as that worker; the composition root asks for it.

A forked copy has the worker's event loop with everything in hand and its connections: it would run
the neighbours again, and its bytes to Redis would mix with the worker's own.
"""

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

EXIT_FORKED = 70  # EX_SOFTWARE

ResultT = TypeVar("ResultT")


def end_copies_of(loop: asyncio.AbstractEventLoop) -> None:
    """From now on a copy of this process ends when its code comes back to `loop`.

    What forks in order to run something else (multiprocessing) does not come back to it.
    """

    def end() -> None:
        # Also what was to be called in this very turn: it belongs to the worker.
        vars(loop)["_ready"].clear()
        loop.call_soon(os._exit, EXIT_FORKED)

    os.register_at_fork(after_in_child=end)


def run_in_thread(work: Callable[[], ResultT]) -> ResultT:
    """The result; a copy that `work` forks ends here. Of a thread's copy the loop does not run."""
    mine = os.getpid()
    try:
        return work()
    finally:
        if os.getpid() != mine:
            os._exit(EXIT_FORKED)
