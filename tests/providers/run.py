"""Real workers, tasks that ask a model once each, and a provider that limits or goes away."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.embedded.ports import free_port
from orchestrator.task import Durability
from orchestrator.testing.provider import Answer, Outage, RateLimit, ScriptedProvider
from orchestrator.testing.rules import Rule
from tests.faults.agents import Job
from tests.faults.asking import AskingOnce
from tests.faults.ground import Ground, ground
from tests.support import wait_until

ENDED = "SELECT state, attempt, count(*) AS tasks FROM tasks GROUP BY 1, 2"
FAILED = "SELECT count(*) AS attempts FROM attempts WHERE state <> 'succeeded' OR attempt > 1"
SPENT = """SELECT count(*) AS answers, coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
coalesce(sum(output_tokens), 0)::bigint AS output_tokens FROM model_calls"""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done. Times in seconds; `minute` is the limit's, which a test has shorter."""

    scenario: Literal["limit", "outage"]
    minute: float = 60.0
    requests: int = 60  # a minute
    tasks: int = 300
    workers: int = 4
    answer: float = 0.3  # that an answer takes
    kind: Literal["window", "bucket"] = "window"
    retry_after: bool = True
    headers: bool = False  # whether each reply says what is left
    by: Literal["503", "529", "cut", "port"] = "503"  # how it is away
    patience: float = 900.0

    @property
    def begins(self) -> float:
        """When the outage does, which lasts a minute."""
        return self.minute / 6

    @property
    def spread(self) -> float:
        """Over how long the tasks come: all at once to a limit, until after an outage to it."""
        return 0.0 if self.scenario == "limit" else 1.5 * self.minute

    @property
    def rules(self) -> list[Rule]:
        """What the provider is told."""
        if self.scenario == "limit":
            limit = RateLimit(
                requests=self.requests, per=self.minute, kind=self.kind,
                retry_after=self.retry_after, headers=self.headers,
            )  # fmt: skip
            return [limit]
        match self.by:
            case "port":
                return []
            case "cut":
                return [Outage(self.begins, self.begins + self.minute, by="closed")]
            case status:
                return [Outage(self.begins, self.begins + self.minute, by=int(status))]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it. `late`: after the first minute, or after the outage."""

    plan: Plan
    seconds: float  # from the first request to the last end
    ended: dict[str, int]  # tasks, by state and attempt
    attempts: int  # that are written down as failed or killed
    requests: int
    refused: int  # or not answered; without those that found the port closed
    late_requests: int
    late_refused: int
    closings: int
    recorded: dict[str, int]
    counted: dict[str, int]

    @property
    def wrong(self) -> list[str]:
        """What it should not have come to; empty where all is well."""
        ok = {f"{self.plan.tasks} succeeded, attempt 1": self.ended.get("succeeded, attempt 1")}
        found = {
            "not every task succeeded at its first attempt": {*ok.values()} != {self.plan.tasks},
            "an attempt was used up": self.attempts > 0,
            "more than 1 % were refused late": self.late_refused > 0.01 * self.late_requests,
            "the record and the provider's count differ": self.recorded != self.counted,
        }
        return [what for what, is_so in found.items() if is_so]

    def as_json(self) -> dict[str, Any]:
        """Every figure."""
        return {**asdict(self), "wrong": self.wrong}


async def run(plan: Plan, *, say: Say = lambda _: None) -> Outcome:
    """From the first submission to the last end."""
    port = free_port()
    environment = {
        "AURORA_AGENTS": "tests.faults.asking",
        "AURORA_MODEL": "openai-chat:scripted",
        "AURORA_MODEL_KEYS": json.dumps({"openai": "the-key-of-nobody"}),
        "AURORA_MODEL_URLS": json.dumps({"openai": f"http://127.0.0.1:{port}/v1"}),
        # As it is by default: two cores start all of this at one time.
        "AURORA_LEASE": "15",
    }
    async with ground(environment=environment, workers=plan.workers) as found:
        began = time.monotonic()
        providing = asyncio.create_task(_provide(plan, port))
        try:
            await _submit(plan, found)
            await wait_until(
                lambda: _ended(found, plan, say), what="every task ended", timeout=plan.patience
            )
            seconds = time.monotonic() - began
        finally:
            providing.cancel()
        try:
            servers = await providing
        except asyncio.CancelledError:
            raise AssertionError("the provider was not up") from None
        return await _outcome(plan, found, servers, seconds)


async def _provide(plan: Plan, port: int) -> list[tuple[float, ScriptedProvider]]:
    """Until it is cancelled; each server that there was, with its second."""
    began, servers = time.monotonic(), list[tuple[float, ScriptedProvider]]()
    answer = Answer("yes", seconds=plan.answer)
    try:
        if plan.scenario == "outage" and plan.by == "port":
            async with _server(answer, plan, port, servers, began):
                await asyncio.sleep(plan.begins)
            await asyncio.sleep(plan.minute)
        async with _server(answer, plan, port, servers, began):
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        return servers
    raise AssertionError


def _server(
    answer: Answer,
    plan: Plan,
    port: int,
    servers: list[tuple[float, ScriptedProvider]],
    began: float,
) -> ScriptedProvider:
    made = ScriptedProvider(answer, rules=plan.rules, port=port, keep=100_000)
    servers.append((time.monotonic() - began, made))
    return made


async def _submit(plan: Plan, found: Ground) -> None:
    submitter, durability = found.parts.submitter, Durability.STREAM
    tasks = [AskingOnce.task(Job(n=n)) for n in range(plan.tasks)]
    if not plan.spread:
        await submitter.submit_many(tasks, durability=durability)
        return
    for task in tasks:
        await submitter.submit_many([task], durability=durability)
        await asyncio.sleep(plan.spread / plan.tasks)


async def _ended(found: Ground, plan: Plan, say: Say) -> bool:
    await asyncio.sleep(0.2)  # beside the pause of `wait_until`: each look is a query
    (row,) = await found.rows("SELECT count(*) AS tasks FROM results")
    say(f"{row.tasks} of {plan.tasks} tasks have ended")
    return bool(row.tasks >= plan.tasks)


async def _outcome(
    plan: Plan, found: Ground, servers: list[tuple[float, ScriptedProvider]], seconds: float
) -> Outcome:
    seen = list(_requests(servers))
    first = min(at for at, _ in seen)
    late = plan.minute + (first if plan.scenario == "limit" else plan.begins)
    refused = [at for at, status in seen if status != 200]
    (spent,), (attempts,) = await found.rows(SPENT), await found.rows(FAILED)
    streams = found.parts.streams
    gates = [each.decode() for each in await streams.commands.smembers(streams.keys.gates)]
    closings = [await streams.commands.hget(streams.keys.gate(each), "closings") for each in gates]
    counts = [each.count for _, each in servers]
    return Outcome(
        plan=plan,
        seconds=round(seconds - first, 1),
        ended=dict(
            Counter({f"{r.state}, attempt {r.attempt}": r.tasks for r in await found.rows(ENDED)})
        ),
        attempts=attempts.attempts,
        requests=len(seen),
        refused=len(refused),
        late_requests=sum(at > late for at, _ in seen),
        late_refused=sum(at > late for at in refused),
        closings=sum(int(each or 0) for each in closings),
        recorded={name: int(getattr(spent, name)) for name in COUNTED},
        counted={name: sum(getattr(each, name) for each in counts) for name in COUNTED},
    )


COUNTED = ("answers", "input_tokens", "output_tokens")


def _requests(
    servers: list[tuple[float, ScriptedProvider]],
) -> Iterator[tuple[float, int | None]]:
    """When each came, and what it was answered with."""
    for began, server in servers:
        for seen in server.seen:
            if seen.request is not None:
                yield began + seen.request.at, seen.status
