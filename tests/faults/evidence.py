"""Gathers what there is to judge by, a share of the tasks at a time, so that a million fit.

All of one task is in one share: whatever is compared is compared within it.
"""

import bisect
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from orchestrator.task import TaskId
from tests.faults.checks import Evidence, Findings, Result, Run, judge, judge_run
from tests.faults.ground import Ground
from tests.faults.ledger import Ledger, Start, read_starts
from tests.faults.orders import read_deaths

SHARE = 20_000  # tasks: some ten megabytes, and a question is answered in a fraction of a second
FIRST = "00000000-0000-0000-0000-000000000000"

ENDED = """SELECT results.task_id::text AS id FROM results JOIN tasks ON tasks.id = results.task_id
WHERE tasks.state IN ('succeeded', 'failed', 'cancelled', 'expired', 'dead')
AND results.task_id = ANY(CAST(:ids AS uuid[]))"""
RESULTS = """SELECT task_id::text AS id, state, attempt, output, worker, finished_at, recorded_at
FROM results"""
# A share is from an id to before another; the last one has no end. In text, as in the audit.
OF_A_SHARE = "{0} >= CAST(:first AS {1}) AND (:last = '' OR {0} < CAST(nullif(:last, '') AS {1}))"
RESULTS_OF = f"{RESULTS} WHERE {OF_A_SHARE.format('task_id', 'uuid')}"
TASKS_OF = f"""SELECT id::text AS id, state, attempt FROM tasks
WHERE {OF_A_SHARE.format("id", "uuid")}"""
AUDIT_OF = f"""SELECT object_id AS id,
CASE WHEN action IN ('task.queued', 'task.scheduled') AND before IS NULL THEN 'first'
ELSE action END AS action, count(*) AS count
FROM audit_events WHERE object_type = 'task' AND {OF_A_SHARE.format("object_id", "text")}
GROUP BY 1, 2"""
LETTERS_OF = f"""SELECT task_id::text AS id, count(*) AS count FROM dead_letters
WHERE {OF_A_SHARE.format("task_id", "uuid")} GROUP BY 1"""


async def judged(
    found: Ground, ledger: Ledger, seen: Mapping[TaskId, int], strangers: frozenset[TaskId]
) -> Findings:
    """Every check, on everything."""
    deaths = read_deaths(found.deaths)
    of_workers = {pid for slot in found.workers for pid in slot.ends}
    at_points = [each for each in deaths.values() if each.pid in of_workers]
    run = Run(
        asked=ledger.read()[0].values(),
        kills=[*found.kills, *((each.pid, each.at) for each in deaths.values())],
        orders=found.orders,
        deaths=deaths,
        ends={pid: code for slot in found.slots for pid, code in slot.ends.items()},
        forgot=found.forgot,
        worker_deaths=sum(slot.deaths for slot in found.workers) - len(at_points),
    )
    findings = judge_run(run)
    async for share in shares(found, ledger, seen, strangers):
        findings.add(judge(share, run))
    return findings


async def still_open(found: Ground, ids: Collection[TaskId]) -> list[TaskId]:
    """Which of these have not ended."""
    left, some = set(ids), list(ids)
    for at in range(0, len(some), SHARE):
        ended = await found.rows(ENDED, ids=some[at : at + SHARE])
        left -= {row.id for row in ended}
    return sorted(left)


async def shares(
    found: Ground, ledger: Ledger, seen: Mapping[TaskId, int], strangers: frozenset[TaskId]
) -> AsyncIterator[Evidence]:
    """All that was asked for, and all that Postgres has besides."""
    asked, accepted = ledger.read()
    begins = [FIRST, *sorted(asked)[SHARE::SHARE]]
    starts = _by_share(begins, read_starts(found.notes))
    first_seen = _by_share(begins, seen.items())
    ours, theirs = (_by_share(begins, each.items()) for each in (asked, accepted))
    for number, (first, last) in enumerate(pairwise([*begins, ""])):
        where = {"first": first, "last": last}
        tasks = await found.rows(TASKS_OF, **where)
        audit: dict[TaskId, Counter[str]] = defaultdict(Counter)
        for row in await found.rows(AUDIT_OF, **where):
            audit[row.id][row.action] += row.count
        yield Evidence(
            asked=dict(ours[number]),
            accepted=dict(theirs[number]),
            starts=starts[number],
            states={row.id: (row.state, row.attempt) for row in tasks},
            results={row.id: result(row) for row in await found.rows(RESULTS_OF, **where)},
            first_seen=dict(first_seen[number]),
            audit=audit,
            strangers=strangers,
            dead_letters=Counter(
                {row.id: row.count for row in await found.rows(LETTERS_OF, **where)}
            ),
        )


def result(row: Any) -> Result:
    """A row of RESULTS."""
    return Result(
        row.id, row.state, row.attempt, row.output, row.worker, row.finished_at, row.recorded_at
    )


def _by_share(begins: Sequence[TaskId], items: Any) -> list[list[Any]]:
    """Starts, or pairs, whose first word is a task's id."""
    found: list[list[Any]] = [[] for _ in begins]
    for each in items:
        task_id = each.task_id if isinstance(each, Start) else each[0]
        found[max(0, bisect.bisect_right(begins, task_id) - 1)].append(each)
    return found
