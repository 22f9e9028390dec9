"""The examples in README and docs run: what a reader copies works."""

import re
from pathlib import Path

import pytest

from orchestrator.client import set_submitter
from tests.integration.test_spine import Shout, Text, rows, running

ROOT = Path(__file__).parent.parent.parent
QUERYING = (ROOT / "docs" / "querying.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


async def test_the_sql_of_the_page_runs(database):
    """Every SQL example is valid against the schema at head."""
    examples = blocks(QUERYING, "sql")
    assert len(examples) >= 3
    for sql in examples:
        await rows(database, sql)


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


def test_the_readmes_agent_is_an_agent():
    """The ten lines on the first screen."""
    namespace: dict = {"__name__": "readme"}
    exec(blocks((ROOT / "README.md").read_text(), "python")[0], namespace)  # noqa: S102
    assert namespace["Shout"].name == "shout"


@pytest.mark.parametrize(
    "page", ["README.md", "docs/why.md", "docs/querying.md", "docs/performance.md"]
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
