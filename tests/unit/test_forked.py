"""P6: the copy of a worker that an agent forks ends, and says and does nothing on its way."""

import asyncio
import subprocess
import sys

import pytest

from orchestrator.runtime.forked import run_in_loop
from orchestrator.runtime.witness import Step
from orchestrator.streams.neighbours import NAME

IN_THE_LOOP = """
import asyncio, os, sys
from orchestrator.runtime.forked import run_in_loop
from orchestrator.runtime.witness import Step
from orchestrator.streams.neighbours import NAME

async def neighbour():
    while True:
        print(os.getpid(), "neighbour", flush=True)
        await asyncio.sleep(0)

async def agent():
    if copy := os.fork():
        print(os.getpid(), "copy", os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]))
    else:
        await asyncio.sleep(0)
        print(os.getpid(), "went on", flush=True)

async def main():
    print(os.getpid(), "worker", flush=True)
    beside = asyncio.create_task(run_in_loop(neighbour(), Step(bytearray(NAME), b"n")))
    await asyncio.sleep(0)
    await run_in_loop(agent(), Step(bytearray(NAME), b"a"))
    beside.cancel()

if sys.argv[1] == "uvloop":  # as a worker has it
    from uvloop import run
else:
    from asyncio import run
run(main())
"""
IN_A_THREAD = """
import os
from orchestrator.runtime.forked import run_in_thread

print(os.getpid(), "worker", flush=True)
mine = os.getpid()
copy = run_in_thread(os.fork)
if os.getpid() != mine:
    print(os.getpid(), "went on", flush=True)
print(os.getpid(), "copy", os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]))
"""
TO_RUN_SOMETHING_ELSE = """
import asyncio, multiprocessing, os
from orchestrator.runtime.forked import run_in_loop
from orchestrator.runtime.witness import Step
from orchestrator.streams.neighbours import NAME

def work():
    step = Step(bytearray(NAME), b"a")
    os._exit(0 if asyncio.run(run_in_loop(asyncio.sleep(0, True), step)) else 1)

async def agent():
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    await asyncio.to_thread(process.join)
    print(os.getpid(), "copy", process.exitcode)

print(os.getpid(), "worker", flush=True)
asyncio.run(run_in_loop(agent(), Step(bytearray(NAME), b"a")))
"""


@pytest.mark.parametrize(
    ("program", "loop", "code"),
    [
        (IN_THE_LOOP, "asyncio", "70"),
        (IN_THE_LOOP, "uvloop", "70"),
        (IN_A_THREAD, "none", "70"),
        (TO_RUN_SOMETHING_ELSE, "asyncio", "0"),
    ],
    ids=["in the loop", "in uvloop", "in a thread", "to run something else"],
)
def test_a_copy_ends_where_it_would_go_on(program, loop, code):
    """Nothing but the worker itself says a word; what forks on purpose may do so."""
    found = subprocess.run(
        [sys.executable, "-c", program, loop],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip

    said = [line.split(maxsplit=1) for line in found.stdout.splitlines()]
    assert {pid for pid, _ in said} == {said[0][0]}
    assert said[-1][1] == f"copy {code}"


async def test_what_a_coroutine_waits_for_passes_through():
    """Results, errors and cancellations, as without it."""

    async def work(seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            return "cancelled"
        raise ValueError("its own")

    step = Step(bytearray(NAME), b"a")

    with pytest.raises(ValueError, match="its own"):
        await run_in_loop(work(0), step)
    running = asyncio.create_task(run_in_loop(work(60), step))
    await asyncio.sleep(0)
    running.cancel()
    assert await running == "cancelled"
