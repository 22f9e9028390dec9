"""The examples in README and docs run: what a reader copies works."""

import asyncio
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import indent
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai.models.test import TestModel

from orchestrator import Agent, Alert, TaskState, TaskUnsuccessful
from orchestrator.app import recorder
from orchestrator.client import set_submitter
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.streams.names import RESULTS
from orchestrator.task import new_id
from tests.integration.test_alert_rules import alert, handle, handler, publish
from tests.integration.test_spine import Shout, Text, rows, running
from tests.live import alert as publish_alert
from tests.live import replica
from tests.support import wait_until

ROOT = Path(__file__).parent.parent.parent
LIVE = (ROOT / "docs" / "live.md").read_text()
QUERYING = (ROOT / "docs" / "querying.md").read_text()
USAGE = (ROOT / "docs" / "usage.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


README_PYTHON = blocks((ROOT / "README.md").read_text(), "python")


async def test_the_sql_of_the_pages_runs(database):
    """Every SQL example is valid against the schema at head."""
    examples = blocks(QUERYING + USAGE, "sql")
    assert len(examples) >= 3
    for sql in examples:
        await rows(database, sql)


async def test_a_call_that_another_program_tells_of_is_recorded(settings, database):
    """As the page writes it; it sums up to what the page shows."""
    shown, told = (json.loads(each) for each in blocks(USAGE, "json"))
    async with running(settings, Shout, roles=(recorder,)) as parts:
        await parts.publisher.publish_data(RESULTS, json.dumps(told).encode())
        (line,) = await wait_until(
            lambda: rows(database, "SELECT usage FROM attempts"), what="recorded"
        )
    figures = {name: told["usage"][name] for name in ("input_tokens", "cached_tokens", "cost_usd")}
    assert line["usage"].keys() == shown.keys()
    assert {name: line["usage"][name] for name in figures} == figures


async def test_the_sqlalchemy_example_runs(settings, database):
    """On a record with a real result in it."""
    async with running(settings, Shout) as parts:
        set_submitter(parts.submitter)
        handle = await Shout.delay(Text(text="hello"))
        await handle.get(timeout=10, recorded=True)
    set_submitter(None)
    namespace: dict = {}
    exec(blocks(QUERYING, "python")[0], namespace)  # noqa: S102 - our own page
    async with database.session() as session:
        found = await namespace["slowest"](session, "shout")
    assert [each[0] for each in found] == [handle.task_id]
    assert found[0][1] > 0


async def test_the_agent_of_the_page_runs_and_is_submitted_as_it_says(settings, database):
    """Its retry and its giving up, and every call of the page."""
    agent, calls = blocks((ROOT / "docs" / "agents.md").read_text(), "python")
    space: dict[str, Any] = {"__name__": "agents_of_the_page"}
    exec(agent, space)  # noqa: S102 - our own page
    exec(f"async def example():\n{indent(calls, '    ')}    return locals()", space)  # noqa: S102
    scan, host = space["Scan"], space["Host"]
    async with running(settings, scan) as parts:
        set_submitter(parts.submitter)
        found = await space["example"]()
        assert found["report"] == space["Report"](host="db-1", open_ports=[22])
        assert found["state"] is TaskState.SUCCEEDED
        assert await found["later"].state() is TaskState.CANCELLED
        assert len([await each.get(timeout=30) for each in found["handles"]]) == 100
        assert (await (await scan.delay(host(name="db-2"))).get(timeout=30)).host == "db-2"
        with pytest.raises(TaskUnsuccessful, match=r"failed: a\.b is not one of ours"):
            await (await scan.delay(host(name="a.b"))).get(timeout=30)
    set_submitter(None)


async def test_the_rules_of_the_page_run(settings, database):
    """A story of one machine, read by its agent once it has gathered."""
    space: dict[str, Any] = {"__name__": "rules_of_the_page"}
    for block in blocks((ROOT / "docs" / "rules.md").read_text(), "python"):
        exec(block, space)  # noqa: S102 - our own page
    space["OneMachine"].gather = timedelta(0)
    registry = AgentRegistry(
        [space["Judge"], space["Investigate"]], [space["SeriousOnes"], space["OneMachine"]]
    )
    found = Parts(settings, role="test", registry=registry)
    await found.streams.ensure_all_groups()
    await publish(found, alert(signature="Beacon", severity="high"), alert(signature="other"))
    await handle(handler(found))
    await found.close()

    async with running(settings, registry=registry):
        results = await wait_until(
            lambda: rows(
                database, "SELECT output FROM results WHERE (SELECT count(*) FROM results) = 2"
            ),
            what="both agents' results",
        )
    assert {"alerts": 2, "signatures": ["Beacon", "other"]} in [each["output"] for each in results]


async def test_the_client_that_follows_alerts_works(settings, database, streams):
    """As it stands on the page, from the first alert on."""
    namespace: dict = {}
    exec(blocks(LIVE, "python")[0], namespace)  # noqa: S102 - our own page
    heard = []
    async with replica(settings, database, streams) as api:
        following = asyncio.create_task(
            namespace["follow"](api.url, api.api.key, lambda alert: heard.append(alert) or "stop")
        )
        await wait_until(lambda: api.api.parts.live.websockets, what="it is connected")
        while not heard:
            await publish_alert(streams, "seen")
            await asyncio.wait({following}, timeout=0.2)
        await following
    assert heard[0]["signature"] == "seen"


def test_the_readmes_agent_is_an_agent():
    """The ten lines on the first screen."""
    namespace: dict = {"__name__": "readme"}
    exec(README_PYTHON[0], namespace)  # noqa: S102 - our own page
    assert namespace["Shout"].name == "shout"


async def test_the_readmes_client_gets_its_result(settings, monkeypatch, capsys):
    """Settings from the environment, the agent from its module, as the page has it."""
    agent, client = (dict[str, Any](__name__="agents.shout"), dict[str, Any](__name__="client"))
    exec(README_PYTHON[0], agent)  # noqa: S102 - our own page
    monkeypatch.setitem(sys.modules, "agents.shout", SimpleNamespace(**agent))
    for name in ("redis_url", "database_url"):
        value = getattr(settings, name).get_secret_value()
        monkeypatch.setenv(f"AURORA_{name.upper()}", value)
    monkeypatch.setenv("AURORA_PREFIX", settings.prefix)
    source = README_PYTHON[1]
    assert source.endswith("asyncio.run(main())\n")
    exec(source.removesuffix("asyncio.run(main())\n"), client)  # noqa: S102 - the same

    async with running(settings, agent["Shout"]):
        await client["main"]()

    assert capsys.readouterr().out == "HELLO\n"


def test_the_readmes_isolated_agent_is_an_agent():
    """With the limits that the page names."""
    given = {"Agent": Agent, "timedelta": timedelta, "Capture": BaseModel, "Findings": BaseModel}
    namespace: dict = {"__name__": "readme", **given}
    exec(README_PYTHON[2], namespace)  # noqa: S102 - our own page
    assert namespace["Parse"].isolation == "process"


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(f"docs/{each.name}" for each in (ROOT / "docs").glob("*.md"))]
)
def test_paths_that_a_page_names_exist(page):
    """A link to a file that is gone helps nobody."""
    found = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    for target in found:
        assert ((ROOT / page).parent / target).exists(), target


def test_the_page_names_every_table():
    """A new table gets its line."""
    from orchestrator.db.models import Base

    for name in Base.metadata.tables:
        assert f"`{name}`" in QUERYING, name


async def test_the_agents_of_the_page_on_models_ask_one(settings, database):
    """Both examples, with a model of pydantic-ai's for tests in place of a provider's."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for example in blocks((ROOT / "docs" / "models.md").read_text(), "python"):
        exec(example, namespace)  # noqa: S102 - our own page
    assess, answer = namespace["Assess"], namespace["Answer"]
    seen = Alert(
        id=new_id(), source="suricata", occurred_at=datetime.now(UTC), severity="low", signature="x"
    )
    with (
        namespace["assess"].override(model=TestModel()),
        namespace["summarise"].override(model=TestModel()),
    ):
        async with running(settings, assess, answer) as parts:
            set_submitter(parts.submitter)
            verdict = await (await assess.delay(seen)).get(timeout=20)
            said = await (await answer.delay(namespace["Question"](text="How is it?"))).get(
                timeout=20
            )
    assert isinstance(verdict, namespace["Verdict"])
    assert said
