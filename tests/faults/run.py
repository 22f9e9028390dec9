"""Two phases: faults under load, then nothing but time. Then the checker has its say."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from orchestrator.task import TaskId
from tests.benchmarks.progress import Telling
from tests.faults.checks import SHOWN, Evidence, Findings, Result, judge
from tests.faults.ground import GRACE, LEASE, Ground, ground
from tests.faults.ledger import Ledger, read_starts
from tests.faults.orders import read_deaths
from tests.faults.scenario import Scenario, Scene, Told

HEAL = 3 * LEASE + GRACE  # seconds; the reconciler leaves a row alone for its grace
DRAIN = 50.0  # tasks a second that two busy cores drain at least, while processes still start
GIVE_UP = 20.0  # seconds past the limit, to tell what is late from what is lost
LATE = 1.5 * LEASE  # seconds in which a late end would still come in
LOOK = 0.5  # seconds between looks at new results
OVERLAP = 5  # seconds of results that are looked at again: commits are not in order


@dataclass(frozen=True)
class Outcome:
    """What a run has come to."""

    scenario: Scenario
    seed: int
    faults: int
    asked: int
    accepted: int
    refused: int
    open_at_last_fault: int
    heal_seconds: float
    heal_limit: float
    seconds: float
    worker_deaths: int
    told: Told  # the scenario's own figures
    findings: Findings

    @property
    def good(self) -> bool:
        return self.findings.good and self.heal_seconds <= self.heal_limit


async def run(
    scenario: Scenario, *, seed: int, tasks: int, faults: int, telling: Telling
) -> Outcome:
    """One scenario from beginning to end."""
    began = time.monotonic()
    telling.say("servers and processes start")
    async with ground(
        servers=scenario.servers, workers=scenario.workers, recorders=scenario.recorders,
        apis=scenario.apis, schedulers=scenario.schedulers, environment=scenario.environment,
        apart=scenario.apart,
    ) as found:  # fmt: skip
        ledger = Ledger(found.home / "ledger.jsonl")
        load = scenario.load(
            found, ledger, Random(f"{seed}:load"), total=tasks, faults=faults,
            pause=sum(scenario.pause) / 2 + scenario.lasts, durabilities=scenario.durabilities,
            asks_again=scenario.asks_again, longest=scenario.longest,
            delayed=scenario.delayed, agents=scenario.agents, batch=scenario.batch,
        )  # fmt: skip
        watch = Watch(found)
        watching = asyncio.create_task(watch.run())
        scene = Scene(found, load, Random(f"{seed}:faults"))
        await scenario.prepare(scene)
        async with scenario.beside(scene) as noticed, asyncio.TaskGroup() as group:
            group.create_task(load.run())
            group.create_task(_break(scenario, scene, watch, faults, telling))
        await scenario.settle(scene)
        healing = time.monotonic()
        open_then = len(ledger.read()[1]) - len(await found.rows(ENDED))
        limit = HEAL + scenario.patience + max(0, open_then) / DRAIN
        await _heal(found, ledger, limit, telling)
        healed = time.monotonic() - healing
        telling.say("late ends may come")
        await asyncio.sleep(LATE)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        further = await scenario.wrong(scene)
        evidence = await _gather(found, ledger, watch, await scenario.strangers(scene))
        findings = judge(evidence)
        findings.wrong |= {**noticed.wrong, **further}
        if not findings.good:
            telling.note(found.logs())
            for task_id in sorted(
                {each[:36] for wrong in findings.wrong.values() for each in wrong[:SHOWN]}
            ):
                for row in await found.rows(HISTORY, task=task_id):
                    telling.note(f"{task_id} {row.said}")
        return Outcome(
            scenario=scenario, seed=seed, faults=faults, asked=len(evidence.asked),
            accepted=len(evidence.accepted), refused=load.refused,
            open_at_last_fault=max(0, open_then), heal_seconds=healed, heal_limit=limit,
            seconds=time.monotonic() - began, worker_deaths=evidence.worker_deaths,
            told={**noticed.told, **await scenario.told(scene)}, findings=findings,
        )  # fmt: skip


async def _break(
    scenario: Scenario, scene: Scene, watch: "Watch", faults: int, telling: Telling
) -> None:
    for number in range(faults):
        await asyncio.sleep(scene.rng.uniform(*scenario.pause))
        await scenario.inject(scene)
        scene.load.fault_done()
        telling.say(
            f"{number + 1} of {faults} faults, {scene.load.accepted} accepted,"
            f" {len(watch.first_seen)} ended"
        )


async def _heal(found: Ground, ledger: Ledger, limit: float, telling: Telling) -> None:
    """Wait until every task that was accepted has ended."""
    _, accepted = ledger.read()
    deadline = time.monotonic() + limit + GIVE_UP
    while time.monotonic() < deadline:
        began = time.monotonic()
        missing = set(accepted) - {row.id for row in await found.rows(ENDED)}
        if not missing:
            return
        telling.say(f"no more faults; {len(missing)} of {len(accepted)} are open")
        # Of many tasks the question itself is work, which must not hold up what is asked about.
        await asyncio.sleep(max(0.1, 2 * (time.monotonic() - began)))


ENDED = """SELECT results.task_id::text AS id FROM results JOIN tasks ON tasks.id = results.task_id
WHERE tasks.state IN ('succeeded', 'failed', 'cancelled', 'expired', 'dead')"""
RESULTS = "SELECT task_id::text AS id, state, attempt, output, worker, finished_at FROM results"
NEW = f"{RESULTS} WHERE recorded_at > now() - make_interval(secs => :seconds)"
AUDIT = """SELECT object_id AS id,
CASE WHEN action IN ('task.queued', 'task.scheduled') AND before IS NULL THEN 'first'
ELSE action END AS action,
count(*) AS count FROM audit_events WHERE object_type = 'task' GROUP BY 1, 2"""

HISTORY = """SELECT concat_ws(' ', at, action, actor, before, after, detail) AS said
FROM audit_events WHERE object_id = :task ORDER BY at"""


class Watch:
    """Remembers each result as it first was, to find out whether anybody changed it."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.first_seen: dict[str, Result] = {}

    async def run(self) -> None:
        """Look at what is new until cancelled."""
        last = time.monotonic()
        while True:
            now = time.monotonic()
            for row in await self._ground.rows(NEW, seconds=now - last + OVERLAP):
                self.first_seen.setdefault(row.id, _result(row))
            last = now
            await asyncio.sleep(max(LOOK, 2 * (time.monotonic() - now)))


def _result(row: Any) -> Result:
    return Result(row.id, row.state, row.attempt, row.output, row.worker, row.finished_at)


async def _gather(
    found: Ground, ledger: Ledger, watch: Watch, strangers: frozenset[TaskId]
) -> Evidence:
    asked, accepted = ledger.read()
    audit: dict[str, Counter[str]] = {}
    for row in await found.rows(AUDIT):
        audit.setdefault(row.id, Counter())[row.action] += row.count
    letters: Sequence[Any] = await found.rows(
        "SELECT task_id::text AS id, count(*) AS count FROM dead_letters GROUP BY 1"
    )
    deaths = read_deaths(found.deaths)
    of_workers = {pid for slot in found.workers for pid in slot.ends}
    at_points = [each for each in deaths.values() if each.pid in of_workers]
    tasks = await found.rows("SELECT id::text AS id, state, attempt FROM tasks")
    return Evidence(
        asked=asked,
        accepted=accepted,
        starts=read_starts(found.notes),
        kills=[*found.kills, *((each.pid, each.at) for each in deaths.values())],
        orders=found.orders,
        deaths=deaths,
        ends={pid: code for slot in found.slots for pid, code in slot.ends.items()},
        worker_deaths=sum(slot.deaths for slot in found.workers) - len(at_points),
        states={row.id: (row.state, row.attempt) for row in tasks},
        results={row.id: _result(row) for row in await found.rows(RESULTS)},
        first_seen=watch.first_seen,
        audit=audit,
        strangers=strangers,
        dead_letters=Counter({row.id: row.count for row in letters}),
    )
