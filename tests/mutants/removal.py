"""A guard, and how it is taken away in a copy of the tree: for mutants and for fault runs."""

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
COPIED = ("orchestrator", "agents", "migrations", "tests", "pyproject.toml", "alembic.ini")


@dataclass(frozen=True)
class Mutant:
    """One guard, how it is removed, and the test (or scenario) that must notice."""

    promise: str
    file: str
    guard: str
    without: str
    test: str
    also: tuple[tuple[str, str, str], ...] = ()  # file, guard, without: where one backs another


def take_away(mutant: Mutant, copy: Path) -> None:
    """Copy the tree and remove the guard there. Raises LookupError unless it stands there once."""
    for part in COPIED:
        source, target = ROOT / part, copy / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for file, guard, without in ((mutant.file, mutant.guard, mutant.without), *mutant.also):
        changed = copy / file
        text = changed.read_text()
        if text.count(guard) != 1:
            raise LookupError(f"the guard is not found once in {file}")
        changed.write_text(text.replace(guard, without))
