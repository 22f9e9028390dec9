"""For users who test their agents: run one without Redis, Postgres or a worker.

found = await run_agent(Triage(), alert, rows=[{"seen": 3}])
assert found.output.severity == "high"
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic

from orchestrator.agent import Agent, InputT, OutputT
from orchestrator.context import RunContext
from orchestrator.outcome import Completed, Outcome
from orchestrator.runtime.runner import Runner

Row = dict[str, Any]
Rows = Sequence[Row] | Callable[[str, Mapping[str, Any]], Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Ran(Generic[OutputT]):
    """What one attempt came to, and what it said on the way."""

    outcome: Outcome
    output: OutputT | None  # None unless it completed
    progress: tuple[Row, ...]


async def run_agent(
    agent: Agent[InputT, OutputT],
    task_input: InputT,
    *,
    rows: Rows = (),
    attempt: int = 1,
    at: datetime | None = None,
) -> Ran[OutputT]:
    """One attempt, as a worker would run it: validation, timeout and retry policy included.

    `rows`: what `ctx.query` gives, or a function of the SQL and its parameters. `at`: when the
    task was to run. Raises InvalidInput.
    """
    said: list[Row] = []

    async def emit(detail: Row) -> bool:
        said.append(detail)
        return True

    async def read(sql: str, params: Mapping[str, Any]) -> list[Row]:
        return list(rows(sql, params) if callable(rows) else rows)

    now = datetime.now(UTC)
    context = RunContext(
        task=agent.task(task_input, run_at=at),
        attempt=attempt,
        worker="test",
        deadline=now + agent.timeout,
        emit=emit,
        read=read,
    )
    with ThreadPoolExecutor(max_workers=1) as threads:
        outcome = await Runner(threads, max_output=2**23).run(agent, context)
    output = (
        agent.output_type.validate_json(outcome.output) if isinstance(outcome, Completed) else None
    )
    return Ran(outcome, output, tuple(said))
