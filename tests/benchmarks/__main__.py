"""`python -m tests.benchmarks [W0 ... W6] [--quick] [--repeats N] [--json FILE] [--svg FILE]`.

Measures everything in turn, round after round, so that every figure and its limit have seen the
same hours of the machine.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.cli.opening import run_long
from tests.benchmarks import (
    machine,
    plot,
    report,
    w0_machine,
    w1_enqueue,
    w2_drain,
    w3_latency,
    w4_waiting,
    w5_footprint,
    w6_growth,
)
from tests.benchmarks.case import FULL, QUICK, Case
from tests.benchmarks.figures import Sample, figures_of
from tests.benchmarks.goals import GOALS
from tests.benchmarks.ground import ROOT, ground
from tests.benchmarks.peers import environments
from tests.benchmarks.progress import Telling

WORKLOADS = {
    "W0": w0_machine,
    "W1": w1_enqueue,
    "W2": w2_drain,
    "W3": w3_latency,
    "W4": w4_waiting,
    "W5": w5_footprint,
    "W6": w6_growth,
}


def arguments() -> argparse.Namespace:
    """What to measure, how often, and where to write it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "workloads", nargs="*", metavar="W", help="W1 to W6 (and W0, always); all unless given"
    )
    parser.add_argument("--repeats", type=int, help="rounds (5; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="small sizes, under two minutes")
    parser.add_argument("--no-peers", action="store_true", help="without pgqueuer and taskiq")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the comparison")
    found = parser.parse_args()
    asked = [each.upper() for each in found.workloads]
    found.workloads = ["W0", *(each for each in asked if each != "W0")] if asked else [*WORKLOADS]
    if strange := set(found.workloads) - set(WORKLOADS):
        parser.error(f"no workload {min(strange)}; there are {', '.join(WORKLOADS)}")
    found.repeats = found.repeats or (1 if found.quick else 5)
    return found


def schedule(chosen: argparse.Namespace) -> list[Case]:
    """Every case of every round, in turn."""
    sizes = QUICK if chosen.quick else FULL
    cases = [
        case
        for name in chosen.workloads
        for case in WORKLOADS[name].cases(sizes, peers=not chosen.no_peers)
        if chosen.only in case.name
    ]
    return [case for turn in range(chosen.repeats) for case in cases if turn < case.rounds]


async def measure(chosen: argparse.Namespace) -> tuple[dict[str, Any], list[Sample], list[str]]:
    """Run it: what it ran on, the samples, and which cases failed."""
    about = {"machine": machine.describe(ROOT), "rounds": chosen.repeats, "quick": chosen.quick}
    about["began"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    turns, samples, failed = schedule(chosen), [], []
    with Telling(len(turns)) as telling:
        names = () if chosen.no_peers else tuple(environments.REQUIREMENTS)
        telling.say("the peers' environments")
        about["peers"] = [await environments.version(each) for each in names]
        async with ground(telling) as found:
            about["servers"] = found.facts
            for case in turns:
                telling.step(case.name)
                try:
                    samples += await case.measure(found)
                except Exception as error:  # noqa: BLE001 - the other figures are worth having
                    failed.append(f"{case.name}: {type(error).__name__}: {error}")
                    telling.note(f"[red]failed[/red] {failed[-1]}")
        telling.finish()
    return about, samples, failed


def main() -> int:
    """Measure, print, write; 1 where a case failed."""
    chosen = arguments()
    # A user's own settings would be measured instead of the defaults.
    for name in [each for each in os.environ if each.startswith("AURORA_")]:
        if not name.startswith("AURORA_TEST_"):
            del os.environ[name]
    began = time.monotonic()
    about, samples, failed = run_long(measure(chosen))
    about["seconds"] = round(time.monotonic() - began, 1)
    about["failed"] = failed
    figures = figures_of(samples)
    console = Console(width=None if sys.stdout.isatty() else 150)
    report.print_about(console, about)
    console.print(report.table(figures.values()))
    console.print(report.goals_table(GOALS, figures, quick=chosen.quick))
    console.print(f"{len(samples)} samples in {about['seconds']:.0f} s")
    if chosen.json:
        report.write_json(chosen.json, report.as_json(about, figures, GOALS))
    if chosen.svg:
        plot.write(chosen.svg, figures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
