"""Finding agents: in a folder, in a module, once each; and what is said when it cannot be."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import Agent
from orchestrator.cli.dev_session import load_agents_anew
from orchestrator.errors import (
    AgentsNotImportable,
    ConfigurationError,
    DuplicateAgent,
    UnknownAgent,
)
from orchestrator.registry import AgentRegistry, find_agent, load_agents

ONE = "from orchestrator import Agent\n\nclass One(Agent[dict, dict]):\n    version = 1\n"


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """An empty folder of agents with a name of its own, forgotten afterwards."""
    modules, paths = dict(sys.modules), list(sys.path)
    found = tmp_path / f"agents_{tmp_path.name}"
    found.mkdir()
    yield found
    sys.path[:] = paths
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


class Spare(Agent[dict, dict]):
    """Found by name."""


def test_a_folder_is_imported_under_its_own_name(folder):
    """So that an import by users is the same class as the one that the worker runs."""
    (folder / "one.py").write_text(ONE)

    registry = load_agents([str(folder)])

    assert list(registry.by_name) == ["one"]
    assert registry.get("one") is sys.modules[f"{folder.name}.one"].One


def test_a_module_by_its_name(folder):
    """The other kind of source, as a package installed elsewhere."""
    (folder / "one.py").write_text(ONE)
    sys.path.insert(0, str(folder.parent))

    assert list(load_agents([f"{folder.name}.one"]).by_name) == ["one"]


def test_files_that_begin_with_an_underscore_are_not_agents(folder):
    """Shared code has a place in the folder."""
    (folder / "_shared.py").write_text("1 / 0\n")
    (folder / "one.py").write_text(ONE)

    assert len(load_agents([str(folder)])) == 1


def test_an_agent_imported_from_its_neighbour_is_no_second(folder):
    """Only classes that a module defines count."""
    (folder / "one.py").write_text(ONE)
    (folder / "two.py").write_text(
        f"from {folder.name}.one import One\n\nclass Two(One):\n    name = 'two'\n"
    )

    assert list(load_agents([str(folder)]).by_name) == ["one", "two"]


def test_two_agents_of_one_name_are_refused(folder):
    """Both places are named."""
    (folder / "one.py").write_text(ONE)
    (folder / "two.py").write_text(ONE)

    with pytest.raises(DuplicateAgent, match=r"one\.One and .*two\.One; rename one"):
        load_agents([str(folder)])


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("import os\n\nimport no_such_module\n", 3, "no_such_module"),
        ("x = 1\ndef f(:\n", 2, "SyntaxError"),
        ("\n1 / 0\n", 2, "ZeroDivisionError"),
        (
            "from orchestrator import Agent\nclass Slow(Agent[int, int]):\n    timeout = 30\n",
            2,
            "timeout is a timedelta",
        ),
        (
            "from orchestrator import Agent\nclass No: pass\nclass A(Agent[No, int]):\n    x = 1\n",
            3,
            "pydantic-core schema",
        ),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
    ],
)
def test_a_file_that_does_not_import_is_told_with_its_line(folder, text, line, said):
    """Whatever a user's module raises."""
    (folder / "broken.py").write_text(text)

    with pytest.raises(AgentsNotImportable) as caught:
        load_agents([str(folder)])

    assert f"{folder / 'broken.py'}, line {line}" in str(caught.value)
    assert said in str(caught.value)


UNTYPED = """
from orchestrator import Agent

class Base(Agent):
    async def run(self, task_input, ctx):
        return task_input

class Typed(Base, Agent[dict, dict]):
    pass

class Untyped(Base):
    pass
"""


def test_an_agent_that_names_no_types_is_refused_and_a_base_is_not(folder):
    """No worker would know it, and nobody would hear why."""
    (folder / "typed.py").write_text(UNTYPED.partition("class Untyped")[0])
    assert list(load_agents([str(folder)]).by_name) == ["typed"]

    (folder / "untyped.py").write_text(UNTYPED)
    right = r"untyped\.Untyped .* write class Untyped\(Agent\[Input, Output\]\)"
    with pytest.raises(ConfigurationError, match=right):
        load_agents([str(folder)])


def test_a_base_and_its_children_may_be_in_two_files(folder):
    """And a child process, which imports the one of its agent alone, finds what stands there."""
    base = UNTYPED.partition("class Typed")[0]
    beside = "class Beside(Agent[dict, dict]):\n    pass\n"
    (folder / "a_base.py").write_text(base + beside)
    child = f"from {folder.name}.a_base import Base\nfrom orchestrator import Agent\n"
    (folder / "child.py").write_text(child + "class Child(Base, Agent[dict, dict]):\n    pass\n")
    assert list(load_agents([str(folder)]).by_name) == ["beside", "child"]

    (folder / "alone.py").write_text(base + beside)
    assert find_agent(f"{folder.name}.alone", "beside").name == "beside"


def test_a_folder_that_is_not_there(tmp_path):
    """Says which setting names it."""
    with pytest.raises(ConfigurationError, match="does not exist; make it, or set AURORA_AGENTS"):
        load_agents([str(tmp_path / "nothing")])


def test_a_folder_whose_name_means_something_else_is_refused(tmp_path):
    """As `agents` does where openai-agents is installed; both places are shown."""
    (tmp_path / "json").mkdir()

    with pytest.raises(ConfigurationError, match="json") as caught:
        load_agents([str(tmp_path / "json")])

    assert str(tmp_path / "json") in str(caught.value)


def test_an_unknown_name_is_told_with_the_nearest():
    """A slip is a slip."""
    with pytest.raises(UnknownAgent, match="no agent named 'spaer'; did you mean 'spare'"):
        AgentRegistry([Spare]).get("spaer")


def test_the_default_queue_comes_first():
    """A worker reads every queue that one of its agents asks for."""

    class Aside(Agent[dict, dict]):
        queue = "aside"

    assert AgentRegistry([Aside, Spare]).queues == ("default", "aside")


def test_agents_are_imported_anew(folder):
    """`aurora dev` sees the file as it is now."""
    (folder / "one.py").write_text(ONE)
    before = load_agents([str(folder)]).get("one")
    (folder / "one.py").write_text(ONE.replace("version = 1", "version = 22"))

    after = load_agents_anew([str(folder)]).get("one")

    assert (before.version, after.version) == (1, 22)  # type: ignore[attr-defined]


def test_a_file_that_broke_leaves_the_modules_as_they_were(folder):
    """So that what runs goes on running."""
    (folder / "one.py").write_text(ONE)
    before = load_agents([str(folder)]).get("one")
    (folder / "one.py").write_text(ONE + "1 / 0  # broken now\n")

    with pytest.raises(AgentsNotImportable, match="line 5"):
        load_agents_anew([str(folder)])

    assert sys.modules[f"{folder.name}.one"].One is before
