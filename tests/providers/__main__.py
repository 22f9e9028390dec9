"""`python -m tests.providers --scenario limit|outage [--kind bucket] [--silent] [--by port] ...`.

300 tasks of 4 workers ask a model whose provider allows 60 requests a minute, or is away for a
minute. Prints the figures; 1 where more than 1 % were refused late, or an attempt was used up.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from orchestrator.cli.opening import run_long
from tests.benchmarks.progress import Telling
from tests.providers.run import Outcome, Plan, run


def _plan() -> tuple[Plan, Path | None]:
    parser = argparse.ArgumentParser(prog="python -m tests.providers", description=__doc__)
    add = parser.add_argument
    add("--scenario", choices=["limit", "outage"], required=True)
    add("--minute", type=float, default=60.0, help="seconds of the limit's time, or the outage's")
    add("--requests", type=int, default=60, help="that the limit allows in it")
    add("--tasks", type=int, default=300)
    add("--workers", type=int, default=4)
    add("--answer", type=float, default=0.3, help="seconds that an answer takes")
    add("--kind", choices=["window", "bucket"], default="window", help="of the limit")
    add("--silent", action="store_true", help="without Retry-After")
    add("--headers", action="store_true", help="with x-ratelimit-*")
    add("--by", choices=["503", "529", "cut", "port"], default="503", help="how it is away")
    add("--json", type=Path, metavar="FILE", help="write every figure")
    given = vars(parser.parse_args())
    file, silent = given.pop("json"), given.pop("silent")
    return Plan(**given, retry_after=not silent), file


def _table(found: Outcome) -> Table:
    plan = found.plan
    shown = Table(title=_title(plan), title_justify="left")
    shown.add_column("", no_wrap=True)
    shown.add_column("", justify="right")
    for ended, tasks in found.ended.items():
        shown.add_row(f"tasks {ended}", str(tasks))
    shown.add_row("attempts used up", str(found.attempts))
    shown.add_row("all done after", f"{found.seconds} s")
    shown.add_row("requests", str(found.requests))
    shown.add_row("of them refused or cut off", str(found.refused))
    when = "the first minute" if plan.scenario == "limit" else "the outage"
    share = found.late_refused / max(1, found.late_requests)
    late = f"{found.late_refused} of {found.late_requests} ({share:.1%})"
    shown.add_row(f"refused after {when}", late)
    shown.add_row("times that the gate closed", str(found.closings))
    shown.add_row(
        "answers, tokens in and out, recorded", ", ".join(map(str, found.recorded.values()))
    )
    shown.add_row("the same, counted by the provider", ", ".join(map(str, found.counted.values())))
    shown.add_row("verdict", "[red]" + "; ".join(found.wrong) if found.wrong else "[green]good")
    return shown


def _title(plan: Plan) -> str:
    who = f"{plan.tasks} tasks, {plan.workers} workers"
    if plan.scenario == "outage":
        return f"{who}; away for {plan.minute:g} s ({plan.by})"
    said = "with Retry-After" if plan.retry_after else "without Retry-After"
    said += ", with headers" if plan.headers else ""
    return f"{who}; {plan.requests} requests in {plan.minute:g} s, {plan.kind}, {said}"


def main() -> int:
    """Run, print, write."""
    plan, file = _plan()
    # A user's own settings would be tested instead of the defaults.
    for name in [each for each in os.environ if each.startswith("AURORA_")]:
        if not name.startswith("AURORA_TEST_"):
            del os.environ[name]
    logging.getLogger("aurora").addHandler(logging.NullHandler())
    with Telling(1) as telling:
        telling.step(plan.scenario)
        found = run_long(run(plan, say=telling.say))
        telling.finish()
    Console(width=None if sys.stdout.isatty() else 120).print(_table(found))
    if file:
        file.write_text(json.dumps(found.as_json(), indent=1))
    return bool(found.wrong)


if __name__ == "__main__":
    sys.exit(main())
