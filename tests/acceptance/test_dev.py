"""`aurora dev`: ready, reloading, and gone without a trace."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.test_cli import Done, aurora, start
from tests.acceptance.test_demo import left_over
from tests.support import wait_until

pytestmark = pytest.mark.acceptance

AGENT = """
import asyncio

from pydantic import BaseModel

from orchestrator import Agent


class Text(BaseModel):
    text: str
    seconds: float = 0


class Say(Agent[Text, Text]):
    async def run(self, task_input, ctx):
        await asyncio.sleep(task_input.seconds)
        return Text(text="one " + task_input.text)
"""


@dataclass
class Dev:
    """A running `aurora dev`."""

    home: Path
    log: Path
    process: asyncio.subprocess.Process | None = None

    async def begin(self, **env: str) -> None:
        """Start it and wait until it says how to reach it."""
        self.env_file.unlink(missing_ok=True)  # of one that was killed
        with self.log.open("ab") as log:
            self.process = await start(
                "dev", "--port", "0", cwd=self.home, output=log.fileno(), **env
            )

        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.returncode is None, self.log.read_text()
            return self.env_file.exists()

        await wait_until(is_ready, what="aurora dev ready", timeout=60)

    @property
    def env_file(self) -> Path:
        return self.home / ".aurora" / "env"

    @property
    def env(self) -> dict[str, str]:
        """What it wrote for others."""
        return dict(line.split("=", 1) for line in self.env_file.read_text().splitlines())

    def events(self) -> list[dict[str, Any]]:
        """What it logged."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, event: str) -> list[str]:
        """The messages of one kind."""
        return [each["message"] for each in self.events() if each.get("event") == event]

    def client(self) -> httpx2.AsyncClient:
        """HTTP, with the key."""
        return httpx2.AsyncClient(
            base_url=self.env["AURORA_API_URL"],
            headers={"Authorization": f"Bearer {self.env['AURORA_API_KEY']}"},
        )

    async def over_http(self, agent: str, **given: Any) -> Any:
        """The output of a task that was submitted and awaited over HTTP."""
        async with self.client() as client:
            answer = await client.post("/api/v1/tasks", json={"agent": agent, "input": given})
            assert answer.status_code == 202, answer.text
            path = answer.headers["Location"]

            async def ended() -> Any:
                task = (await client.get(path)).json()
                return task["state"] == "succeeded" and task

            return (await wait_until(ended, what="the task ended"))["result"]["output"]

    async def run(self, *arguments: str) -> Done:
        """Another command, in the same folder and without settings."""
        return await aurora(*arguments, cwd=self.home)

    async def end(self) -> int:
        """SIGTERM, and wait."""
        assert self.process is not None
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 30)


@pytest.fixture
async def dev(tmp_path) -> AsyncIterator[Dev]:
    """A folder with one agent, and whatever runs there ended."""
    home = tmp_path / "home"
    (home / "agents").mkdir(parents=True)
    (home / "agents" / "__init__.py").touch()
    (home / "agents" / "say.py").write_text(AGENT)
    found = Dev(home, tmp_path / "dev.log")
    yield found
    if found.process is not None and found.process.returncode is None:
        found.process.kill()
        await found.process.wait()
    await wait_until(lambda: not left_over(home), what="no process left", timeout=15)


async def test_a_task_through_http_and_an_orderly_end(dev):
    """Ready, reachable with the key it made; afterwards the file, and every process, is gone."""
    await dev.begin()

    assert stat.S_IMODE(dev.env_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((dev.home / ".aurora" / "key").stat().st_mode) == 0o600
    assert (await dev.over_http("say", text="x"))["text"] == "one x"

    assert await dev.end() == 0
    assert not dev.env_file.exists()
    assert not left_over(dev.home)


async def test_the_second_start_knows_the_first(dev):
    """The same key, the same data; and commands beside it find the servers by themselves."""
    await dev.begin()
    first = dev.env["AURORA_API_KEY"]
    done = await dev.run("run", "say", '{"text": "x"}')
    assert done.code == 0, done.err
    await dev.end()

    await dev.begin()

    assert dev.env["AURORA_API_KEY"] == first
    listed = await dev.run("tasks", "list", "-o", "json")
    assert [task["state"] for task in json.loads(listed.out)] == ["succeeded"]


async def test_killed_it_leaves_no_process(dev):
    """SIGKILL: within 5 s there is neither a server nor a worker; and it starts again."""
    await dev.begin()
    assert len(left_over(dev.home)) > 3

    dev.process.kill()
    await dev.process.wait()
    await wait_until(lambda: not left_over(dev.home), what="no process left", timeout=5)

    await dev.begin()
    assert (await dev.run("run", "say", '{"text": "x"}')).code == 0


async def test_a_changed_agent_is_reloaded_and_no_task_is_lost(dev):
    """What runs finishes with the old code; what comes after is done by the new."""
    await dev.begin()
    slow = asyncio.create_task(dev.run("run", "say", '{"text": "slow", "seconds": 4}'))

    async def is_running() -> bool:
        listed = await dev.run("tasks", "list", "--state", "running", "-o", "json")
        return bool(json.loads(listed.out))

    await wait_until(is_running, what="the slow task running")
    file = dev.home / "agents" / "say.py"
    file.write_text(AGENT.replace('"one "', '"two "'))
    await wait_until(lambda: dev.logged("agents.reloaded"), what="the reload")

    async def says_two() -> bool:
        done = await dev.run("run", "say", '{"text": "x"}')
        return json.loads(done.out)["text"] == "two x"

    await wait_until(says_two, what="the new code answering", timeout=30)
    assert json.loads((await slow).out)["text"] == "one slow"
    listed = await dev.run("tasks", "list", "-o", "json")
    assert {(task["state"], task["attempt"]) for task in json.loads(listed.out)} == {
        ("succeeded", 1)
    }


async def test_a_new_agent_is_known_everywhere(dev):
    """Also to the API, which runs in the parent process."""
    await dev.begin()
    text = AGENT.replace("class Say", "class Cry").replace("one ", "cry ")
    (dev.home / "agents" / "cry.py").write_text(text)
    await wait_until(lambda: dev.logged("agents.reloaded"), what="the reload")

    assert (await dev.over_http("cry", text="x"))["text"] == "cry x"


async def test_a_broken_agent_leaves_the_old_ones_running(dev):
    """File and line are said; the worker goes on as it was."""
    await dev.begin()
    (dev.home / "agents" / "broken.py").write_text("\n\n1 / 0\n")

    said = await wait_until(lambda: dev.logged("agents.unreadable"), what="the complaint")

    assert f"{dev.home / 'agents' / 'broken.py'}, line 3" in said[0]
    assert (await dev.over_http("say", text="x"))["text"] == "one x"


async def test_a_killed_worker_is_replaced(dev):
    """The next task is done all the same."""
    await dev.begin()
    (worker,) = left_over(dev.home, argument="worker")
    worker.kill()

    await wait_until(lambda: dev.logged("worker.ended"), what="the end noticed")

    assert (await dev.run("run", "say", '{"text": "x"}')).code == 0


async def test_a_second_one_in_the_same_folder(dev):
    """Refused at once, naming who is there."""
    await dev.begin()

    done = await dev.run("dev", "--port", "0")

    assert done.code == 2
    assert f"in use by aurora dev (process {dev.process.pid})" in done.complaint


async def test_a_port_in_use(dev):
    """Refused before anything is started."""
    await dev.begin()
    port = dev.env["AURORA_API_URL"].rpartition(":")[2]

    done = await dev.run("dev", "--port", port, "--data-dir", "elsewhere")

    assert done.code == 2
    assert f"127.0.0.1:{port}: the port is in use" in done.complaint


async def test_agents_that_do_not_import(dev):
    """At the start there is nothing to go on with: file, line, exit code 2."""
    (dev.home / "agents" / "say.py").write_text("\nimport no_such_module\n")

    done = await dev.run("dev", "--port", "0")

    assert done.code == 2
    assert "say.py, line 2" in done.complaint


async def test_servers_that_are_given_are_used(dev, settings):
    """AURORA_REDIS_URL and AURORA_DATABASE_URL instead of embedded ones."""
    given = {
        "AURORA_REDIS_URL": settings.redis_url.get_secret_value(),
        "AURORA_DATABASE_URL": settings.database_url.get_secret_value(),
        "AURORA_PREFIX": settings.prefix,
    }
    await dev.begin(**given)

    assert dev.env["AURORA_REDIS_URL"] == given["AURORA_REDIS_URL"]
    assert dev.env["AURORA_DATABASE_URL"] == given["AURORA_DATABASE_URL"]
    assert not list((dev.home / ".aurora").glob("*/server.log"))
    assert await dev.end() == 0
