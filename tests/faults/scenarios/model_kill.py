"""SIGKILL of workers in the middle of model calls: what was answered has been spent."""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from orchestrator.testing.provider import Answer, Request, ScriptedProvider
from tests.faults.asking import QUESTIONS, Asking
from tests.faults.ground import Slot
from tests.faults.ledger import read_starts
from tests.faults.scenario import Scenario, Scene, Told
from tests.faults.servers import Servers
from tests.support import wait_until

RECENT = 1.0  # seconds since a start: its run, of QUESTIONS calls, is under way
SHORTEST, LONGEST = 0.2, 0.6  # seconds of an answer
SPENT = """SELECT task_id::text AS id, count(*) AS calls, sum(input_tokens)::bigint AS input,
sum(output_tokens)::bigint AS output FROM model_calls GROUP BY 1"""
OTHERWISE = """SELECT r.task_id::text AS id FROM results r LEFT JOIN
(SELECT task_id, count(*) AS calls, sum(input_tokens) AS input, sum(output_tokens) AS output
 FROM model_calls GROUP BY 1) c USING (task_id)
WHERE (r.usage ->> 'requests')::bigint IS DISTINCT FROM c.calls
OR (r.usage ->> 'input_tokens')::bigint IS DISTINCT FROM c.input
OR (r.usage ->> 'output_tokens')::bigint IS DISTINCT FROM c.output"""


class Provided(Servers):
    """A model provider, too, which keeps its own count."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.provider = ScriptedProvider(_reply, keep=1_000_000)

    async def start(self) -> None:
        """Start it with the others."""
        await self.provider.__aenter__()
        await super().start()

    async def stop(self) -> None:
        """Stop it with the others."""
        await super().stop()
        await self.provider.__aexit__(None, None, None)

    def environment(self, who: str) -> Mapping[str, str]:
        """Where the model is."""
        del who
        return {
            "AURORA_AGENTS": "tests.faults.asking",
            "AURORA_MODEL": "openai-chat:scripted",
            "AURORA_MODEL_KEYS": '{"openai": "the-key-of-nobody"}',
            "AURORA_MODEL_URLS": f'{{"openai": "{self.provider.url}"}}',
        }


def _reply(request: Request) -> Answer:
    # Neither the tokens nor the time are the same for two calls that follow each other.
    return Answer(
        "yes", output_tokens=1 + request.number % 97,
        seconds=SHORTEST + (LONGEST - SHORTEST) * (request.number % 13) / 12,
    )  # fmt: skip


class ModelKill(Scenario):
    name = "model-kill"
    breaks = "SIGKILL of one of three workers while its runs wait for a model's answers"
    guards = ("spending is told later",)
    tasks = 500
    faults = 20
    # Seconds: one that was killed has started again, and has loaded its model's library.
    pause = (4.0, 6.0)
    servers = Provided
    agents = (Asking,)
    # What was killed twice runs alone, in a process that loads the library for itself.
    patience = 60.0

    async def inject(self, scene: Scene) -> None:
        """Kill one that has calls under way."""

        def busy() -> list[Slot]:
            # Under the note of a start its first call follows at once.
            since = time.time() - RECENT
            pids = {each.pid for each in read_starts(scene.ground.notes) if each.at > since}
            return [each for each in scene.ground.workers if each.process.pid in pids]

        def calling() -> list[Slot]:
            return busy() if _provider(scene).under_way else []

        scene.ground.kill(scene.rng.choice(await wait_until(calling, what="calls", timeout=60)))

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        """Of each task the record has what was answered, or one call less for each killed run."""
        answered, recorded = _answered(_provider(scene)), await _recorded(scene)
        killed = _killed_runs(scene)
        self.told_of = {
            "answers": sum(len(each) for each in answered.values()),
            "recorded": sum(calls for calls, _, _ in recorded.values()),
            "runs killed": sum(killed.values()),
            "calls cut off": _provider(scene).count.by_status.get("closed", 0),
        }
        nothing = (0, 0, 0)
        missing = {
            task: len(calls) - recorded.get(task, nothing)[0] for task, calls in answered.items()
        }
        whole = [task for task, calls in missing.items() if calls == 0]
        return {
            "answers missing beyond one for each killed run": [
                f"{task} {calls} of {killed[task]} runs" for task, calls in missing.items()
                if calls > killed[task]
            ],
            "calls recorded that nobody answered": [
                task for task in recorded if missing.get(task, -1) < 0
            ],
            "tokens other than the provider's count": [
                task for task in whole
                if recorded[task][1:] != tuple(map(sum, zip(*answered[task], strict=True)))
            ],
            "fewer calls than a run has": [
                task for task, (calls, _, _) in recorded.items() if calls < QUESTIONS
            ],
            "results with another sum": [row.id for row in await scene.ground.rows(OTHERWISE)],
        }  # fmt: skip

    async def told(self, scene: Scene) -> Told:
        """How many calls were lost to the record, of how many at most."""
        del scene
        return {"model calls": self.told_of}


def _provider(scene: Scene) -> ScriptedProvider:
    servers = scene.ground.servers
    assert isinstance(servers, Provided)
    return servers.provider


def _answered(provider: ScriptedProvider) -> dict[str, list[tuple[int, int]]]:
    """Tokens in and out of each answer that was sent whole, by task."""
    found = defaultdict(list)
    for seen in provider.seen:
        if seen.request and seen.tokens:
            (text,) = seen.request.texts("user")
            named = re.search(r"task (\S+),", text)
            assert named is not None
            found[named[1]].append((seen.tokens.input, seen.tokens.output))
    return dict(found)


async def _recorded(scene: Scene) -> dict[str, tuple[int, int, int]]:
    return {row.id: (row.calls, row.input, row.output) for row in await scene.ground.rows(SPENT)}


def _killed_runs(scene: Scene) -> Counter[str]:
    """By task, how many of its runs a kill ended: it began again, and its worker was killed."""
    killed = {pid for pid, _ in scene.ground.kills}
    by_task = defaultdict(list)
    for start in read_starts(scene.ground.notes):
        by_task[start.task_id].append(start)
    found: Counter[str] = Counter()
    for task, starts in by_task.items():
        starts.sort(key=lambda each: each.at)
        found[task] = sum(before.pid in killed for before, _ in pairwise(starts))
    return found
