"""`aurora demo`: in a fresh folder with agents, on nothing but Python."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.acceptance.test_cli import aurora
from tests.support import wait_until

pytestmark = pytest.mark.acceptance

AGENTS = Path(__file__).parent.parent.parent / "agents"
LONGEST = 60.0  # seconds


def left_over(home: Path, *, argument: str = "") -> list[psutil.Process]:
    """Processes that work in `home` or were started for something in it."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            if str(home) in " ".join([process.cwd(), *line]) and (argument in ["", *line]):
                found.append(process)
        except psutil.Error:
            continue  # gone meanwhile
    return found


async def test_the_demo_runs_through_and_leaves_nothing(tmp_path):
    """Exit code 0 in under a minute; a worker was killed with tasks in hand, and none was lost."""
    shutil.copytree(AGENTS, tmp_path / "agents")
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    async with asyncio.timeout(LONGEST):
        done = await aurora("demo", cwd=tmp_path, TMPDIR=str(temporary))

    assert done.code == 0, done.err
    assert done.err == ""
    assert "killed (SIGKILL)" in done.out
    assert "0 were lost" in done.out
    assert "were started again by the other worker" in done.out
    for part in (
        "results",
        "audit trail",
        "attempt",
        "The most severe",
        "The slowest",
        "aurora dev",
    ):
        assert part in done.out
    assert "\x1b" not in done.out
    assert list(temporary.iterdir()) == []
    await wait_until(lambda: not left_over(tmp_path), what="no process left")


async def test_the_demo_elsewhere_says_where_to_run_it(tmp_path):
    """Without agents there is nothing to show."""
    done = await aurora("demo", cwd=tmp_path)

    assert done.code == 2
    assert "there is no such folder" in done.complaint


async def test_the_demo_says_when_something_fails(tmp_path):
    """Agents that cannot do it: exit code 1, and why."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").touch()
    (tmp_path / "agents" / "refuse.py").write_text(
        "import asyncio\n"
        "from orchestrator import Agent, Alert, GiveUp, Rule\n"
        "class Refuse(Agent[Alert, Alert]):\n"
        "    async def run(self, task_input, ctx):\n"
        "        await asyncio.sleep(0.05)\n"  # work: the demo kills a worker that has some
        "        raise GiveUp('no')\n"
        "class Every(Rule):\n"
        "    agent = Refuse\n"
    )

    done = await aurora("demo", cwd=tmp_path)

    assert done.code == 1
    assert "did not succeed" in done.err.splitlines()[-1]


async def test_a_demo_that_is_killed_leaves_no_process(tmp_path):
    """SIGKILL in the middle: servers and workers end by themselves."""
    from tests.acceptance.test_cli import start

    shutil.copytree(AGENTS, tmp_path / "agents")
    with tempfile.TemporaryFile() as log:
        process = await start("demo", cwd=tmp_path, output=log.fileno(), TMPDIR=str(tmp_path))
        await wait_until(lambda: left_over(tmp_path, argument="worker"), what="a worker started")
        process.kill()
        await process.wait()

    await wait_until(lambda: not left_over(tmp_path), what="no process left", timeout=15)
