"""Calls of models for tasks of the seed, as the recorder would have left them."""

import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid5

from orchestrator.db.columns import Base
from orchestrator.db.models import AttemptRow, ModelCallRow, ResultRow, TaskRow
from orchestrator.task import NAMESPACE
from orchestrator.usage import ModelCall, Usage

AGENTS = ("enrich", "report")
PRICED, FREE = "openai:gpt-5-mini", "local:gemma-3-270m-it"


def thinking(rows: Sequence[Base], now: datetime) -> list[Base]:
    """Calls of every task of `enrich` and `report` that began, and of the days before."""
    chance = random.Random(11)
    calls: list[ModelCallRow] = []
    by_task: dict[str, list[ModelCallRow]] = defaultdict(list)
    tasks = [row for row in rows if isinstance(row, TaskRow) and row.started_at]
    for task in (each for each in tasks if each.agent in AGENTS):
        for number in range(chance.randrange(1, 5)):
            at = task.started_at + timedelta(seconds=0.2 * number)
            model = FREE if task.agent == "report" else PRICED
            calls.append(_call(chance, task.id, task.agent, at, model))
            calls[-1].attempt = task.attempt
            by_task[task.id].append(calls[-1])
    for day in range(1, 6):
        for number in range(30 - 4 * day):
            at, agent = (
                now - timedelta(days=day, minutes=number),
                chance.choice(("enrich", "report")),
            )
            gone = str(uuid5(NAMESPACE, f"{day} {number}"))
            calls.append(_call(chance, gone, agent, at, chance.choice((PRICED, FREE))))
    for row in rows:
        if isinstance(row, ResultRow) and by_task[row.task_id]:
            row.usage = _usage(by_task[row.task_id])
    return [*calls, *_lines(rows, by_task)]


def _lines(rows: Sequence[Base], by_task: dict[str, list[ModelCallRow]]) -> list[AttemptRow]:
    there = {(row.task_id, row.attempt): row for row in rows if isinstance(row, AttemptRow)}
    added = []
    for task in rows:
        if isinstance(task, TaskRow) and by_task[task.id]:
            line = there.get((task.id, task.attempt))
            if line is None:
                line = AttemptRow(
                    task_id=task.id, attempt=task.attempt, state=task.state, worker=task.worker,
                    started_at=task.started_at, finished_at=task.finished_at,
                )  # fmt: skip
                added.append(line)
            line.usage = _usage(by_task[task.id])
    return added


def _usage(calls: Sequence[ModelCallRow]) -> dict:
    return Usage.of(
        ModelCall.model_validate(
            {name: getattr(each, name) for name in ModelCall.model_fields}
        ) for each in calls
    ).as_json()  # fmt: skip


def _call(
    chance: random.Random, task_id: str, agent: str, at: datetime, model: str
) -> ModelCallRow:
    tokens, answer = chance.randrange(400, 4_000), chance.randrange(20, 400)
    return ModelCallRow(
        id=str(UUID(int=chance.getrandbits(128), version=4)), task_id=task_id, agent=agent,
        attempt=1, model=model, at=at, seconds=chance.uniform(0.4, 6),
        input_tokens=tokens, output_tokens=answer, cached_tokens=chance.choice((0, tokens // 2)),
        tool_calls=chance.randrange(3), worker="soc-1-4211-9f2c",
        cost_usd=None if model == FREE else Decimal(tokens * 25 + answer * 200) / 10**8,
    )  # fmt: skip
