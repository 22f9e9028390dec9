"""`python -m tests.simulation [--seeds N] [--from S] [--seed S] [--fault NAME ...]`.

Runs seeds in virtual time; a seed that is bad is told with the line that runs it again.
"""

import argparse
import sys
import time

from tests.simulation.faults import FAULTS
from tests.simulation.run import Verdict, simulate, simulate_many

SHOWN = 5  # findings of a seed


def arguments() -> argparse.Namespace:
    """Which seeds, and what breaks in them."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, with all that happened in it")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="instead of the seed's")
    return parser.parse_args()


def main() -> int:
    """1 where a promise broke; ends at the first seed in which one did."""
    chosen = arguments()
    if chosen.seed is not None:
        verdict = simulate(chosen.seed, faults=chosen.fault)
        print("\n".join(verdict.log))
        print(told(verdict))
        return 1 if verdict.wrong else 0
    began, count, slowest, starts = time.perf_counter(), 0, 0.0, 0
    for verdict in simulate_many(range(chosen.first, chosen.first + chosen.seeds), chosen.fault):
        count += 1
        slowest = max(slowest, verdict.healed)
        starts += verdict.starts
        if verdict.wrong:
            print(told(verdict))
            return 1
    print(
        f"{count} seeds, {starts} starts of agents, 0 bad; healed after {slowest:.1f} s of virtual"
        f" time at most; {time.perf_counter() - began:.0f} s"
    )
    return 0


def told(verdict: Verdict) -> str:
    """A verdict in words."""
    found = (
        f"seed {verdict.seed}: {', '.join(verdict.faults) or 'no faults'}\n"
        f"    {verdict.accepted} accepted, {verdict.starts} starts, healed after"
        f" {verdict.healed:.1f} s of virtual time, trace {verdict.trace[:16]}"
    )
    if not verdict.wrong:
        return found
    wrong = "\n".join(f"    {each}" for each in verdict.wrong[:SHOWN])
    return f"{found}\n{wrong}\nagain: python -m tests.simulation --seed {verdict.seed}"


if __name__ == "__main__":
    sys.exit(main())
