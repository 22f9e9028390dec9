"""The child process of one attempt: `python -m orchestrator.runtime.child FD`.

Started by `isolated.py`. Reads what to run, limits itself, imports the agent, runs it with the same
Runner as a worker does, says what it came to, and ends.
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import logging
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.client import set_submitter
from orchestrator.context import RunClock, RunContext
from orchestrator.errors import OrchestratorError
from orchestrator.outcome import Outcome
from orchestrator.registry import find_agent
from orchestrator.runtime.dialogue import Start, say_outcome
from orchestrator.runtime.lazy_asker import LazyAsker
from orchestrator.runtime.runner import Runner
from orchestrator.runtime.uplink import RemoteSubmitter, Uplink, UplinkHandler
from orchestrator.spending import budget_of
from orchestrator.tracing.current import set_tracing
from orchestrator.tracing.opening import open_tracing

PR_SET_PDEATHSIG = 1  # linux/prctl.h
OOM_SCORE = "500"  # of 1000; a worker has 0
# Seconds for its spans to be sent before the result is said. A collector that is away gets no
# second try within them, and a timeout is still said before the worker's own patience ends.
EXPORT_TIMEOUT = 0.5
HANGS_AFTER = 0.5  # seconds past the timeout; the worker kills at a whole one


def main() -> None:
    """Run the attempt that the first line names; never returns."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    lines = channel.makefile("rb")
    start = Start.model_validate_json(lines.readline())
    _confine(start)
    uplink = Uplink(channel, lines, nonce=start.nonce, max_output=start.max_output)
    uplink.start()
    logging.getLogger().addHandler(UplinkHandler(uplink))
    logging.getLogger().setLevel(start.log_level)
    sys.path[:] = start.path
    asyncio.run(_attempt(start, uplink))


async def _attempt(start: Start, uplink: Uplink) -> None:
    try:
        agent = find_agent(start.module, start.task.agent)()
    except OrchestratorError as error:
        unfit = {"type": type(error).__name__, "message": str(error)}
        _end(lambda: uplink.say("unfit", **unfit))
        return
    uplink.say("ready")
    set_submitter(RemoteSubmitter(uplink))
    context = RunContext(
        task=start.task,
        attempt=start.attempt,
        worker=start.worker,
        deadline=start.deadline,
        emit=uplink.emit,
        read=uplink.read,
        budget=budget_of(agent.budget, start.task.budget),
        access=uplink,
        asker=LazyAsker(uplink.models, uplink.local),
        clock=RunClock(uplink.extend),
    )
    # What hangs writes down where, before the worker kills it: from C, whatever holds the lock.
    faulthandler.dump_traceback_later(agent.timeout.total_seconds() + HANGS_AFTER)
    with ThreadPoolExecutor(max_workers=1) as threads:
        runner = Runner(threads, max_output=start.max_output)
        outcome = await (
            runner.run(agent, context)
            if start.traceparent is None
            else _traced(start, lambda: runner.run(agent, context))
        )
        _end(lambda: uplink.say("result", outcome=say_outcome(outcome)))


async def _traced(start: Start, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Run with spans of this process', which are in the attempt's trace and sent before its end."""
    tracing = open_tracing(
        os.environ,
        instance=f"{start.worker}.{os.getpid()}",
        content=start.trace_content,
        timeout=EXPORT_TIMEOUT,
    )
    if tracing is None:
        return await run()
    tracing.everywhere()
    set_tracing(tracing)
    with tracing.under(start.traceparent):
        outcome = await run()
    tracing.flush()
    return outcome


def _end(last_words: Callable[[], None]) -> None:
    """Say the last thing and be gone: threads that run on do not keep the process."""
    try:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        last_words()
    finally:
        os._exit(0)


def _confine(start: Start) -> None:
    """Take the limits, and be tied to the worker's life."""
    _limit(resource.RLIMIT_CORE, 0)
    if start.memory_limit is not None:
        _limit(resource.RLIMIT_AS, start.memory_limit)
    if start.cpu_limit is not None:
        seconds = max(1, math.ceil(start.cpu_limit.total_seconds()))
        # SIGXCPU at the first, SIGKILL at the second: the signal tells the limit from a kill.
        _limit(resource.RLIMIT_CPU, seconds, seconds + 1)
    if sys.platform == "linux":
        # Where the machine's memory runs out, the kernel is to take this process and no worker.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    faulthandler.enable()
    faulthandler.register(signal.SIGXCPU, chain=True)
    _die_with_parent()
    # What the agent forks ends with this process, too.
    os.register_at_fork(after_in_child=_die_with_parent)
    if os.getppid() != start.parent:  # it died before that took effect
        os._exit(1)


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; one that is lower already stays."""
    hard = soft if hard is None else hard
    _, highest = resource.getrlimit(what)
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    resource.setrlimit(what, (soft, hard))


def _die_with_parent() -> None:
    # Elsewhere (macOS) the channel's end has to do: the uplink's thread ends the process then.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main()
