"""`aurora run AGENT JSON`: submits one task and, unless told otherwise, waits for its result."""

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import opening
from orchestrator.cli.output import harmless
from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.agent import Agent
    from orchestrator.handle import Handle
    from orchestrator.parts import Parts

PATIENCE = 5.0  # seconds until we say what the reason for the wait may be


class Priority(StrEnum):
    """`task.Priority`, repeated because importing it would cost `--help` its speed."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Durability(StrEnum):
    """`task.Durability`, for the same reason."""

    DATABASE = "database"
    STREAM = "stream"


Key = Annotated[
    str | None, typer.Option(help="The same key is the same task, however often it is sent.")
]
Accepted = Annotated[Durability | None, typer.Option(help="What accepts it [AURORA_DURABILITY].")]


class WrongOption(OrchestratorError):
    """An option that no task can have."""


class NotJson(OrchestratorError):
    """The input on the command line is no JSON object."""


class NoResultYet(OrchestratorError):
    """The task has not ended in the time that was given."""


def run(
    agent: Annotated[str, typer.Argument(help="The agent's name; `aurora agents list` has them.")],
    task_input: Annotated[
        str, typer.Argument(metavar="[JSON]", help="Its input, a JSON object; - reads stdin.")
    ] = "{}",
    *,
    wait: Annotated[bool, typer.Option(help="Wait for the result and print it.")] = True,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most.")] = None,
    countdown: Annotated[float | None, typer.Option(help="Seconds until it may run.")] = None,
    queue: Annotated[str | None, typer.Option(help="Another queue than the agent's.")] = None,
    priority: Annotated[Priority | None, typer.Option(help="Another one than the agent's.")] = None,
    idempotency_key: Key = None,
    durability: Accepted = None,
) -> None:
    """Run an agent once. The exit code tells how it went: 0 succeeded, 1 otherwise."""
    given = _object(sys.stdin.read() if task_input == "-" else task_input)
    options: dict[str, Any] = {
        "countdown": countdown, "queue": queue, "priority": priority and priority.value,
        "idempotency_key": idempotency_key,
    }  # fmt: skip
    found = opening.settings(durability=durability and durability.value)

    async def work(parts: "Parts") -> None:
        from pydantic import ValidationError

        from orchestrator.client import set_submitter

        chosen = parts.registry.get(agent)
        set_submitter(parts.submitter)
        try:
            handle = await chosen.apply_async(given, **options)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)[0]
            raise WrongOption(f"--{wrong['loc'][0]}: {wrong['msg']}".replace("_", "-")) from error
        print(f"task {handle.task_id}", file=sys.stderr if wait else sys.stdout)
        if wait:
            print(await _result(chosen, handle, timeout))

    opening.with_parts(work, found)


def _object(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise NotJson(
            f'the input is not JSON ({error}); write for example \'{{"text": "hello"}}\''
        ) from error
    if not isinstance(given, dict):
        raise NotJson(f"the input is {type(given).__name__}; a JSON object is needed, as in '{{}}'")
    return given


async def _result(
    agent: "type[Agent[Any, Any]]", handle: "Handle[Any]", limit: float | None
) -> str:
    """The result as JSON. Raises TaskUnsuccessful, NoResultYet."""
    patience = PATIENCE if limit is None else min(PATIENCE, limit)
    try:
        output = await handle.get(timeout=patience)
    except TimeoutError:
        output = await _result_after_all(handle, None if limit is None else limit - patience)
    text = agent.output_type.dump_json(output, indent=2).decode()
    return "\n".join(map(harmless, text.splitlines()))


async def _result_after_all(handle: "Handle[Any]", limit: float | None) -> Any:
    state = await handle.state()
    if limit is None or limit > 0:
        hint = "" if state == "running" else "; is a worker running? `aurora doctor` knows"
        print(f"still {state.value} after {PATIENCE:.0f} s{hint}", file=sys.stderr)
    try:
        return await handle.get(timeout=None if limit is None else max(limit, 0.001))
    except TimeoutError:
        state = await handle.state()
        raise NoResultYet(
            f"task {handle.task_id} is still {state.value}; it goes on:"
            f" aurora tasks show {handle.task_id}"
        ) from None
