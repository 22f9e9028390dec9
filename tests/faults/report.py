"""The verdict for people (a table) and for programs (JSON)."""

import subprocess
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from orchestrator.runtime.flight import SUSPECT_AFTER
from tests.faults.checks import SHOWN, Again
from tests.faults.ground import LEASE, ROOT
from tests.faults.run import Outcome


def as_json(found: Outcome) -> dict[str, Any]:
    """Every figure of a run."""
    return {
        "scenario": found.scenario.name,
        "breaks": found.scenario.breaks,
        "seed": found.seed,
        "commit": _commit(),
        "lease": LEASE,
        "seconds": round(found.seconds, 1),
        "faults": found.faults,
        "accepted": found.accepted,
        "refused": found.refused,
        "recovered": found.findings.recovered,
        "superseded": found.findings.superseded,
        "worker_deaths": found.worker_deaths,
        "open_at_last_fault": found.open_at_last_fault,
        "heal_seconds": round(found.heal_seconds, 2),
        "heal_limit": round(found.heal_limit, 2),
        "told": dict(found.told),
        "wrong": found.findings.wrong,
        "points": dict(sorted(found.findings.points.items())),
        "begins_again": _begins_again(found.findings.again),
        # 95 % confidence, for faults that are independent of each other.
        "bound": round(min(1.0, 3 / found.faults), 4),
        "good": found.good,
    }


def table(found: Outcome) -> Table:
    """One run."""
    said = as_json(found)
    shown = Table(
        title=f"{found.scenario.name}, seed {found.seed}: {found.scenario.breaks}",
        title_justify="left",
    )
    shown.add_column("", no_wrap=True)
    shown.add_column("", justify="right", no_wrap=True)
    shown.add_column("")
    shown.add_row("faults", str(found.faults), f"in {found.seconds:.0f} s, commit {said['commit']}")
    shown.add_row("accepted", str(found.accepted), f"{found.refused} refused or unknown")
    shown.add_row("recovered", str(said["recovered"]), "tasks with more than one attempt")
    shown.add_row("superseded", str(said["superseded"]), "late ends that changed nothing")
    if said["worker_deaths"]:
        shown.add_row("workers", str(said["worker_deaths"]), "that ended by themselves")
    for kind, again in said["begins_again"].items():
        shown.add_row(
            "killed, begun again", f"{again['p50']} s",
            f"p50 of {again['n']} {kind}; p99 {again['p99']} s, max {again['max']} s",
        )  # fmt: skip
    for point, count in said["points"].items():
        shown.add_row("killed at", str(count), point)
    for what, figure in found.told.items():
        if isinstance(figure, Mapping):
            shown.add_row(what, "", ", ".join(f"{name} {each}" for name, each in figure.items()))
        else:
            shown.add_row(what, str(figure), "")
    shown.add_section()
    for name, tasks in found.findings.wrong.items():
        mark = "[red]" if tasks else "[green]"
        examples = ", ".join(tasks[:SHOWN])
        shown.add_row(name, f"{mark}{len(tasks)}", examples)
    late = "[green]" if found.heal_seconds <= found.heal_limit else "[red]"
    shown.add_row(
        "healed after", f"{late}{found.heal_seconds:.1f} s",
        f"limit {found.heal_limit:.1f} s, {found.open_at_last_fault} open at the last fault",
    )  # fmt: skip
    shown.add_section()
    bound = f"0 of {found.faults} faults: at most {min(1.0, 3 / found.faults):.1%} (95 %)"
    shown.add_row("verdict", "[green]good" if found.good else "[red]BAD", bound * found.good)
    return shown


def _begins_again(again: list[Again]) -> dict[str, dict[str, float]]:
    """By where it began: a third start is in a process of its own, which takes longer.

    Where the next one who took it was killed, too, the first kill is not what is waited for.
    """
    after_one = [each for each in again if not each.between]
    kinds = {
        "in a worker": [each for each in after_one if each.attempt <= SUSPECT_AFTER],
        "alone": [each for each in after_one if each.attempt > SUSPECT_AFTER],
        "in all": after_one,
        "after kills of several who took it": [each for each in again if each.between],
    }
    return {
        kind: {
            "n": len(found),
            "p50": round(found[len(found) // 2].seconds, 2),
            "p99": round(found[int(len(found) * 0.99)].seconds, 2),
            "max": round(found[-1].seconds, 2),
        }
        for kind, found in kinds.items()
        if found
    }


def _commit() -> str:
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return said.stdout.strip() or "a copy"
