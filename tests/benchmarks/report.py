"""The figures for people (a table, the goals) and for programs (JSON)."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import Figure, Goal, shown

TITLES = {
    "W0": "how quiet the machine is",
    "W1": "enqueue",
    "W2": "drain until everything is in Postgres",
    "W3": "latency, one at a time",
    "W4": "tasks that wait 0.5 s, 500 at a time",
    "W5": "memory and CPU",
    "W6": "how cost grows",
}


def table(figures: Iterable[Figure]) -> Table:
    """One row a figure: median, spread, and its share of what it is read against."""
    found = Table(title="medians of all rounds", title_justify="left")
    found.add_column("", no_wrap=True)
    found.add_column("what")
    for name in ("median", "min - max"):
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("unit", no_wrap=True)
    found.add_column("ratio", justify="right", no_wrap=True)
    found.add_column("of", style="dim")
    last = ""
    for each in figures:
        if each.workload != last:
            found.add_section()
            found.add_row(each.workload, f"[bold]{TITLES.get(each.workload, '')}")
        last = each.workload
        found.add_row(
            "", each.what, shown(each.median),
            f"{shown(min(each.values))} - {shown(max(each.values))}", each.unit,
            "" if each.ratio is None else f"{each.ratio:.2f}",
            "" if each.ratio is None else each.of.partition(" ")[2],
        )  # fmt: skip
    return found


def goals_table(goals: Iterable[Goal], figures: Mapping[str, Figure], *, quick: bool) -> Table:
    """Each goal with its figure, met or not; those that were not measured are left out."""
    title = "goals, at the sizes of --quick: an indication" if quick else "goals"
    found = Table(title=title, title_justify="left")
    found.add_column("goal")
    found.add_column("reached", justify="right")
    found.add_column("")
    for goal in goals:
        reached = goal.reached(figures)
        if reached is not None:
            found.add_row(
                goal.text, shown(reached), "[green]met" if goal.is_met(reached) else "[red]not met"
            )
    return found


def as_json(
    about: Mapping[str, Any], figures: Mapping[str, Figure], goals: Iterable[Goal]
) -> dict[str, Any]:
    """Everything, for programs."""
    reached = {goal.text: (goal, goal.reached(figures)) for goal in goals}
    return {
        **about,
        "figures": [each.as_json() for each in figures.values()],
        "goals": [
            {"goal": text, "reached": value, "met": goal.is_met(value)}
            for text, (goal, value) in reached.items()
            if value is not None
        ],
    }


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Write it, indented."""
    path.write_text(json.dumps(found, indent=2) + "\n")


def print_about(console: Console, about: Mapping[str, Any]) -> None:
    """The machine, the versions, the commit."""
    machine = about["machine"]
    changed = f" + {machine['changed_files']} changed files" if machine["changed_files"] else ""
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB,"
        f" load {machine['load']}, {machine['system']}, Python {machine['python']}"
    )
    console.print(f"commit {machine['commit']}{changed}; servers {about['servers']}")
    console.print(", ".join(f"{name} {said}" for name, said in machine["versions"].items()))
    console.print(f"peers: {', '.join(about['peers']) or 'none'}; rounds: {about['rounds']}")
