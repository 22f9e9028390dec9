"""`python -m tests.faults --scenario NAME [--seed S] [--tasks N] [--faults N] [--minutes M] ...`.

Breaks real processes and servers by the seed, lets them heal, and tells whether a promise broke.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from orchestrator.cli.opening import run_long
from tests.benchmarks.progress import Telling
from tests.faults import mounts, report
from tests.faults.run import Outcome, run
from tests.faults.scenarios import SCENARIOS
from tests.faults.servers import CannotRun
from tests.faults.teeth import GUARDS, run_without


def arguments() -> argparse.Namespace:
    """What to break, how often, and where to write it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=[*SCENARIOS, "all"], default=[])
    parser.add_argument("--seed", type=int, default=1, help="where everything random comes from")
    parser.add_argument("--tasks", type=int, metavar="N", help="good tasks (by scenario)")
    parser.add_argument("--faults", type=int, metavar="N", help="faults (by scenario)")
    parser.add_argument("--minutes", type=float, metavar="M", help="faults and tasks for so long")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--without", choices=GUARDS, metavar="GUARD", help="must turn it red")
    parser.add_argument("--list", action="store_true", help="what there is, with the guards")
    found = parser.parse_args()
    if not found.list and not found.scenario:
        parser.error("--scenario NAME, or --list")
    if "all" in found.scenario:
        found.scenario = list(SCENARIOS)
    return found


async def break_all(chosen: argparse.Namespace) -> list[Outcome]:
    """Each scenario in turn."""
    outcomes = []
    # As Ctrl-C does: what was started is ended, and what was mounted unmounted.
    if (ours := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ours.cancel)
    with Telling(len(chosen.scenario)) as telling:
        for name in chosen.scenario:
            scenario = SCENARIOS[name]
            faults, tasks = chosen.faults or scenario.faults, scenario.tasks
            if chosen.minutes:
                each = sum(scenario.pause) / 2 + scenario.lasts
                faults = max(1, int(chosen.minutes * 60 / each))
                tasks = max(1, tasks * faults // scenario.faults)
            telling.step(name)
            try:
                outcome = await run(
                    scenario, seed=chosen.seed, tasks=chosen.tasks or tasks,
                    faults=faults, telling=telling,
                )  # fmt: skip
            except CannotRun as why:
                telling.note(f"SKIPPED {name}: {why}")
            else:
                outcomes.append(outcome)
        telling.finish()
    return outcomes


def _with_mounts(chosen: argparse.Namespace, console: Console) -> bool:
    """See to it that what is chosen may mount, or take it out, loudly; False if nothing is left."""
    mounting = [name for name in chosen.scenario if SCENARIOS[name].mounts]
    if mounting and mounts.INSIDE not in os.environ:
        if mounts.possible():
            mounts.begin_again_inside()
        console.print(f"[red]NOT RUN: {', '.join(mounting)}: this user may not mount")
        chosen.scenario = [name for name in chosen.scenario if name not in mounting]
    return bool(chosen.scenario)


def main() -> int:
    """Break, print, write; 1 where a promise broke."""
    chosen = arguments()
    console = Console(width=None if sys.stdout.isatty() else 120)
    if chosen.list:
        for each in SCENARIOS.values():
            console.print(f"[bold]{each.name}[/bold]  {each.breaks}")
            console.print(f"    guards: {'; '.join(each.guards) or 'open'}", style="dim")
        return 0
    if chosen.without:
        console.print(f"without its guard: {chosen.without}")
        given = sys.argv[1:]
        at = next(i for i, word in enumerate(given) if word.startswith("--without"))
        return run_without(
            chosen.without, given[:at] + given[at + (given[at] == "--without") + 1 :]
        )
    if not _with_mounts(chosen, console):
        return 2
    # A user's own settings would be tested instead of the defaults.
    for name in [each for each in os.environ if each.startswith("AURORA_")]:
        if not name.startswith("AURORA_TEST_"):
            del os.environ[name]
    # What the client says of servers that are away is what was asked for.
    logging.getLogger("aurora").addHandler(logging.NullHandler())
    try:
        outcomes = run_long(break_all(chosen))
    except asyncio.CancelledError:
        console.print("[red]ended by SIGTERM")
        return 128 + signal.SIGTERM
    for outcome in outcomes:
        console.print(report.table(outcome))
    if chosen.json:
        chosen.json.write_text(json.dumps([report.as_json(each) for each in outcomes], indent=1))
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
