"""Finds agents and rules: in a folder or in modules that the settings name, and by name after."""

import importlib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator.agent import Agent
from orchestrator.errors import (
    AgentsNotImportable,
    ConfigurationError,
    DuplicateAgent,
    DuplicateRule,
    UnknownAgent,
    text_of,
)
from orchestrator.rule import Rule

_OURS = Path(__file__).parent

AgentClass = type[Agent[Any, Any]]
RuleClass = type[Rule]


class AgentRegistry:
    """Agent name -> class, and the rules for alerts. Built once at start; never changed."""

    def __init__(self, classes: Iterable[AgentClass], rules: Iterable[RuleClass] = ()) -> None:
        """Refuse two of one name. Raises DuplicateAgent, DuplicateRule, ConfigurationError."""
        found: dict[str, AgentClass] = {}
        for each in classes:
            other = found.setdefault(each.name, each)
            if other is not each:
                raise DuplicateAgent(each.name, _place(other), _place(each))
        self.by_name: Mapping[str, AgentClass] = dict(sorted(found.items()))
        self.rules: tuple[Rule, ...] = self._made(rules)

    def __iter__(self) -> Iterator[AgentClass]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def get(self, name: str) -> AgentClass:
        """The class of that name. Raises UnknownAgent, which names the near ones."""
        try:
            return self.by_name[name]
        except KeyError:
            raise UnknownAgent(name, tuple(self.by_name)) from None

    def rules_of(self, agent: AgentClass) -> tuple[Rule, ...]:
        """The rules whose alerts become this agent's tasks."""
        return tuple(each for each in self.rules if each.agent is agent)

    def _made(self, rules: Iterable[RuleClass]) -> tuple[Rule, ...]:
        found: dict[str, RuleClass] = {}
        for each in rules:
            other = found.setdefault(each.name, each)
            if other is not each:
                raise DuplicateRule(each.name, _place(other), _place(each))
            if self.by_name.get(each.agent.name) is not each.agent:
                raise ConfigurationError(
                    f"rule {_place(each)} makes tasks of {_place(each.agent)}, which is not loaded"
                    f" from here; loaded: {', '.join(self.by_name) or 'none'} (AURORA_AGENTS)"
                )
        return tuple(_instance(each) for _, each in sorted(found.items()))

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that some agent asks for, the default one first."""
        return ("default", *sorted({each.queue for each in self} - {"default"}))


def load_agents(sources: Iterable[str]) -> AgentRegistry:
    """Import each source, a folder or a module's name, and collect agents and rules in it.

    A folder's parent goes on `sys.path` and the folder is imported under its own name, so that
    `from agents.triage import Triage` is the same class everywhere.
    """
    modules: list[ModuleType] = []
    for source in sources:
        is_path = "/" in source or source.startswith(".") or Path(source).is_dir()
        modules += _import_folder(Path(source)) if is_path else [_import(source, source)]
    classes: dict[AgentClass, None] = {}
    rules: dict[RuleClass, None] = {}
    for module in modules:  # all of them are imported: a base knows its children
        _refuse_untyped(module)
        classes.update(dict.fromkeys(_agents_in(module)))
        rules.update(dict.fromkeys(_rules_in(module)))
    return AgentRegistry(classes, rules)


def find_agent(module: str, name: str) -> AgentClass:
    """The agent of that name in a module (what a child process is told of its agent).

    Raises AgentsNotImportable, UnknownAgent.
    """
    return AgentRegistry(_agents_in(_import(module, module))).get(name)


def _import_folder(folder: Path) -> list[ModuleType]:
    folder = folder.resolve()
    if not folder.is_dir():
        raise ConfigurationError(
            f"agents folder {folder} does not exist; make it, or set AURORA_AGENTS"
        )
    _expose(folder)
    return [
        _import(f"{folder.name}.{found.name}", str(folder / found.name))
        for found in pkgutil.iter_modules([str(folder)])
        if not found.name.startswith("_")
    ]


def _expose(folder: Path) -> None:
    """Make `import <folder's name>` mean this folder. Raises ConfigurationError where it cannot."""
    parent = str(folder.parent)
    if parent not in sys.path:
        sys.path.insert(0, parent)
        importlib.invalidate_caches()
    spec = importlib.util.find_spec(folder.name)
    places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    if not any(Path(place).resolve() == folder for place in places):
        raise ConfigurationError(
            f"the agents are in {folder}, but `import {folder.name}` finds"
            f" {places[0] if places else 'nothing'} (is openai-agents installed?); put an empty"
            " __init__.py into the folder, or rename it and set AURORA_AGENTS"
        )


def _import(name: str, shown: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        # The first frame is this one. Where we refuse a class that they wrote, or what we call
        # does, it is their line that is to be changed.
        frames = traceback.extract_tb(error.__traceback__)[1:]
        *_, last = takewhile(lambda each: not Path(each.filename).is_relative_to(_OURS), frames)
        where = f"{last.filename}, line {last.lineno}"
        if isinstance(error, SyntaxError) and error.filename:
            where = f"{error.filename}, line {error.lineno}"
        raise AgentsNotImportable(
            f"agents in {shown} do not import: {where}: {type(error).__name__}: {text_of(error)}"
        ) from error


def _agents_in(module: ModuleType) -> list[AgentClass]:
    return [each for each in _classes_in(module) if hasattr(each, "input_type")]


def _refuse_untyped(module: ModuleType) -> None:
    for each in _classes_in(module):
        if not hasattr(each, "input_type") and not _is_base(each):
            # Passed over, no worker would know it, and nobody would hear why.
            raise ConfigurationError(
                f"agent {_place(each)} does not name its input and output types: write"
                f" class {each.__name__}(Agent[Input, Output]), and a base for others"
                " as Agent[InputT, OutputT]"
            )


def _classes_in(module: ModuleType) -> list[AgentClass]:
    # Only classes that the module defines: an agent imported from its neighbour is not a second.
    return [
        each
        for each in vars(module).values()
        if inspect.isclass(each)
        and issubclass(each, Agent)
        and each.__module__ == module.__name__
        and not inspect.isabstract(each)
    ]


def _is_base(cls: AgentClass) -> bool:
    """True of what others are derived from: generic, derived from already, or without `run`."""
    is_generic = bool(cls.__parameters__)  # type: ignore[attr-defined]
    return is_generic or bool(cls.__subclasses__()) or cls.run is Agent.run


def _rules_in(module: ModuleType) -> list[RuleClass]:
    return [
        each
        for each in vars(module).values()
        if inspect.isclass(each)
        and issubclass(each, Rule)
        and each.__module__ == module.__name__
        and not each.abstract
    ]


def _instance(cls: RuleClass) -> Rule:
    try:
        return cls()
    except Exception as error:
        raise ConfigurationError(
            f"rule {_place(cls)} cannot be made: {type(error).__name__}: {text_of(error)};"
            " a rule's __init__ takes nothing"
        ) from error


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
