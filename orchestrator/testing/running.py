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
from orchestrator.errors import ConfigurationError
from orchestrator.model_options import ModelOptions
from orchestrator.outcome import Completed, Outcome
from orchestrator.provider import News, Place
from orchestrator.runtime.lazy_asker import LazyAsker
from orchestrator.runtime.model_access import ModelDesk
from orchestrator.runtime.runner import Runner
from orchestrator.spending import budget_of
from orchestrator.task import Task
from orchestrator.usage import ModelCall, Usage

Row = dict[str, Any]
Rows = Sequence[Row] | Callable[[str, Mapping[str, Any]], Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Ran(Generic[OutputT]):
    """What one attempt came to, and what it said on the way."""

    outcome: Outcome
    output: OutputT | None  # None unless it completed
    progress: tuple[Row, ...]
    usage: Usage = Usage()  # noqa: RUF009 - frozen; what `ctx.ask` spent


async def run_agent(
    agent: Agent[InputT, OutputT],
    task_input: InputT,
    *,
    rows: Rows = (),
    attempt: int = 1,
    at: datetime | None = None,
) -> Ran[OutputT]:
    """One attempt, as a worker would run it: validation, timeout and retry policy included.

    Models that it asks are the agent's own, so give it one for tests: `with
    assess.override(model=TestModel())`. Its budget holds; nothing else stands between.

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
    task = agent.task(task_input, run_at=at)
    told = _Told()
    asker = LazyAsker(_options, _no_local_model)
    budget = budget_of(agent.budget, None)
    context = RunContext(
        task=task,
        attempt=attempt,
        worker="test",
        deadline=now + agent.timeout,
        emit=emit,
        read=read,
        budget=budget,
        # As a first attempt's: nothing was spent before.
        access=ModelDesk(_OpenGate(), told, read).of(task, 1, budget),
        asker=asker,
    )
    with ThreadPoolExecutor(max_workers=1) as threads:
        outcome = await Runner(threads, max_output=2**23).run(agent, context)
    await asker.close()
    output = (
        agent.output_type.validate_json(outcome.output) if isinstance(outcome, Completed) else None
    )
    return Ran(outcome, output, tuple(said), Usage.of(told.calls))


class _Told:
    """Keeps what a worker would tell the record."""

    def __init__(self) -> None:
        self.calls: list[ModelCall] = []

    async def add(self, task: Task, attempt: int, call: ModelCall, *, counted: bool) -> None:
        del task, attempt, counted
        self.calls.append(call)

    async def spent(self, task_id: str) -> Usage:
        del task_id
        return Usage.of(self.calls)


class _OpenGate:
    """There is no fleet to share a provider with."""

    async def admit(self, provider: str, place: Place) -> float:
        del provider, place
        return 0.0

    async def tell(self, provider: str, news: News, place: Place) -> None:
        del provider, news, place


async def _options() -> ModelOptions:
    return ModelOptions()


async def _no_local_model() -> str:
    raise ConfigurationError("run_agent starts no server: give the agent a model for tests")
