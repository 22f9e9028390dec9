"""P6: the copy of a worker that an agent forks ends, and says and does nothing on its way."""

import subprocess
import sys

import pytest

IN_THE_LOOP = """
import asyncio, os
from orchestrator.runtime.forked import end_copies_of

async def neighbour():
    while True:
        print(os.getpid(), "neighbour", flush=True)
        await asyncio.sleep(0)

async def main():
    print(os.getpid(), "worker", flush=True)
    end_copies_of(asyncio.get_running_loop())
    beside = asyncio.create_task(neighbour())
    await asyncio.sleep(0)
    if copy := os.fork():
        print(os.getpid(), "copy", os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]))
    else:
        await asyncio.sleep(0)
        print(os.getpid(), "went on", flush=True)
    beside.cancel()

asyncio.run(main())
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
from orchestrator.runtime.forked import end_copies_of

def work():
    os._exit(0 if asyncio.run(asyncio.sleep(0, True)) else 1)

async def main():
    print(os.getpid(), "worker", flush=True)
    end_copies_of(asyncio.get_running_loop())
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    await asyncio.to_thread(process.join)
    print(os.getpid(), "copy", process.exitcode)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("program", "code"),
    [(IN_THE_LOOP, "70"), (IN_A_THREAD, "70"), (TO_RUN_SOMETHING_ELSE, "0")],
    ids=["in the loop", "in a thread", "to run something else"],
)
def test_a_copy_ends_where_it_would_go_on(program, code):
    """Nothing but the worker itself says a word; what forks on purpose may do so."""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )

    said = [line.split(maxsplit=1) for line in found.stdout.splitlines()]
    assert {pid for pid, _ in said} == {said[0][0]}
    assert said[-1][1] == f"copy {code}"
