"""`aurora alerts ingest` and `validate`: files of alerts, one JSON object a line."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import opening
from orchestrator.cli.output import Format, Output, harmless, show_list

if TYPE_CHECKING:
    from orchestrator.alert import AlertKind
    from orchestrator.cli.alert_ingest import Ingest
    from orchestrator.cli.alert_lines import Tally
    from orchestrator.parts import Parts

File = Annotated[
    Path,
    typer.Argument(
        exists=True, dir_okay=False, allow_dash=True, metavar="FILE",
        help="JSON lines: our own schema, Suricata's EVE, Wazuh's alerts.json, OCSF; - is stdin.",
    ),
]  # fmt: skip
Cps = Annotated[
    bool, typer.Option("--cps", help="Alerts that do not say are of machines and things.")
]
TOLD = 20  # bad lines that a run over a whole file says one by one


def ingest(
    file: File,
    cps: Cps = False,
    bad: Annotated[
        Path | None, typer.Option("--bad", dir_okay=False, help="Write the bad lines there.")
    ] = None,
) -> None:
    """Put a file's alerts on their streams, each once; given again it goes on where it was.

    Events of other kinds are counted and skipped. Exit code 1 where a line was bad.
    """

    async def work(parts: "Parts") -> "Ingest":
        from orchestrator.cli.alert_ingest import Ingest

        with _reading(file) as lines, _writing(bad) as bad_lines:
            run = Ingest(parts, name=_name(file), bad=bad_lines)
            await run.run(lines, kind=_kind(cps))
        return run

    done = opening.with_parts(work)
    print(f"{summary(done.tally, new=done.new)}{f' (in {bad})' if bad and done.tally.bad else ''}")
    _complain(done.tally)


def validate(file: File, cps: Cps = False, output: Output = Format.TABLE) -> None:
    """Say which lines of a file are no alerts, and what would be right. Exit code 1 for any.

    Needs no server. -o json has the counts by kind and source, too.
    """
    from orchestrator.cli.alert_lines import Tally, judge

    tally = Tally()
    with _reading(file) as lines:
        for line in judge(lines, kind=_kind(cps), limit=opening.settings().max_payload):
            tally.add(line)
    problems = [
        {"line": line.number, "field": name, "problem": said}
        for line in tally.told
        for name, said in line.problems
    ]
    if output is Format.JSON:
        print(json.dumps(_counts(tally) | {"problems": problems}, indent=2))
    else:
        shown = ("line", "field", "problem")
        show_list(problems, output, columns=shown, nothing="no bad line")
        print(summary(tally), file=sys.stderr if output is Format.JSONL else sys.stdout)
        for what, counts in (("kind", tally.kinds), ("source", tally.sources)):
            if output is Format.TABLE and counts:
                print(f"by {what}: {_listed(counts)}")
    if tally.bad:
        raise typer.Exit(1)


def summary(tally: "Tally", *, new: int | None = None) -> str:
    """What a file was, in one line."""
    others = sum(tally.others.values())
    parts = [f"{tally.alerts} alerts"]
    if new is not None:
        parts.append(f"{new} new")
    parts.append(f"{others} skipped" + (f" ({_listed(tally.others)})" if others else ""))
    return ", ".join([*parts, f"{tally.bad} bad"])


def _counts(tally: "Tally") -> dict[str, Any]:
    return {
        "lines": tally.lines, "alerts": tally.alerts, "kinds": tally.kinds,
        "sources": tally.sources, "skipped": tally.others, "bad": tally.bad,
    }  # fmt: skip


def _listed(counts: Any) -> str:
    most = counts.most_common(10)
    more = len(counts) - len(most)
    said = ", ".join(f"{harmless(str(name))} {count}" for name, count in most)
    return said + (f" and {more} more" if more else "")


def _complain(tally: "Tally") -> None:
    """Name the first bad lines, and leave with the code that says so."""
    if not tally.bad:
        return
    for line in tally.told[:TOLD]:
        for name, said in line.problems:
            at = f" {name}:" if name else ""
            print(harmless(f"line {line.number}:{at} {said}"), file=sys.stderr)
    if tally.bad > TOLD:
        print(f"and {tally.bad - TOLD} more; aurora alerts validate lists them", file=sys.stderr)
    raise typer.Exit(1)


def _kind(cps: bool) -> "AlertKind":
    from orchestrator.alert import AlertKind

    return AlertKind.CPS if cps else AlertKind.NETWORK


def _name(file: Path) -> str:
    return "stdin" if str(file) == "-" else file.name


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    with file.open("rb") as opened:
        yield opened


@contextlib.contextmanager
def _writing(file: Path | None) -> Iterator[IO[bytes] | None]:
    if file is None:
        yield None
        return
    with file.open("wb") as opened:
        yield opened
