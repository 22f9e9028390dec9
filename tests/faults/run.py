"""Two phases: faults under load, then nothing but time. Then the checker has its say."""

import asyncio
import contextlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from random import Random

from orchestrator.task import TaskId
from tests.benchmarks.progress import Telling
from tests.faults.checks import SHOWN, Findings
from tests.faults.evidence import RESULTS, judged, result, still_open
from tests.faults.ground import GRACE, LEASE, Ground, ground
from tests.faults.ledger import Ledger
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
        accepted = ledger.read()[1]
        healing = time.monotonic()
        left = await still_open(found, accepted)
        open_then = len(left)
        limit = HEAL + scenario.patience + open_then / DRAIN
        healed = await _heal(found, left, limit, telling) - healing if left else 0.0
        telling.say("late ends may come")
        await asyncio.sleep(LATE)
        watch.stop()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        further = await scenario.wrong(scene)
        telling.say("judges")
        strangers = await scenario.strangers(scene)
        findings = await judged(found, ledger, watch.first_seen, strangers)
        findings.wrong |= {**noticed.wrong, **further}
        if not findings.good:
            telling.note(found.logs())
            for task_id in sorted(
                {each[:36] for wrong in findings.wrong.values() for each in wrong[:SHOWN]}
            ):
                for row in await found.rows(HISTORY, task=task_id):
                    telling.note(f"{task_id} {row.said}")
        return Outcome(
            scenario=scenario, seed=seed, faults=faults, asked=findings.asked,
            accepted=findings.accepted, refused=load.refused,
            open_at_last_fault=open_then, heal_seconds=healed, heal_limit=limit,
            seconds=time.monotonic() - began, worker_deaths=findings.worker_deaths,
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


async def _heal(found: Ground, left: Collection[TaskId], limit: float, telling: Telling) -> float:
    """Wait until every task has ended; when that was, by the monotonic clock."""
    at_first = len(left)
    deadline = time.monotonic() + limit + GIVE_UP
    while (began := time.monotonic()) < deadline:
        left = await still_open(found, left)
        if not left:
            break
        telling.say(f"no more faults; {len(left)} of {at_first} are still open")
        # Of many tasks the question itself is work, which must not hold up what is asked about.
        await asyncio.sleep(max(0.1, 2 * (time.monotonic() - began)))
    return time.monotonic()


NEW = f"{RESULTS} WHERE recorded_at > now() - make_interval(secs => :seconds)"

HISTORY = """SELECT concat_ws(' ', at, action, actor, before, after, detail) AS said
FROM audit_events WHERE object_id = :task ORDER BY at"""


class Watch:
    """Remembers each result as it first was, to find out whether anybody changed it."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._stopped = False
        self.first_seen: dict[TaskId, int] = {}  # a digest of each

    def stop(self) -> None:
        """Let `run` end. A cancellation may get lost: `asyncio.wait_for` of 3.11 swallows it."""
        self._stopped = True

    async def run(self) -> None:
        """Look at what is new until stopped."""
        last = time.monotonic()
        while not self._stopped:
            now = time.monotonic()
            for row in await self._ground.rows(NEW, seconds=now - last + OVERLAP):
                self.first_seen.setdefault(row.id, result(row).digest)
            last = now
            await asyncio.sleep(max(LOOK, 2 * (time.monotonic() - now)))
