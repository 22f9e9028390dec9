"""/agents: what can run and how well it did; a form for each that starts a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Form, Query, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from orchestrator.api.auth import Actor, needs
from orchestrator.api.parts import ApiParts, Parts
from orchestrator.api.problems import Problem, invalid, problem_of
from orchestrator.api.routes import agents as routes
from orchestrator.api.schemas import TaskIn
from orchestrator.api.submitting import submit, task_of
from orchestrator.dashboard.forms import Blank, own_form
from orchestrator.dashboard.rendering import Show, Shown
from orchestrator.dashboard.routing import Reading, pages
from orchestrator.dashboard.schema_form import (
    Field,
    beside,
    example_of,
    fields_of,
    input_of,
)
from orchestrator.dashboard.snippets import snippets
from orchestrator.dashboard.text import as_json
from orchestrator.dashboard.typed_json import NotJson, object_of
from orchestrator.db import track
from orchestrator.db.keys import Scope
from orchestrator.db.session import Database
from orchestrator.errors import InvalidInput, TaskIdConflict, TookTooLong, Unavailable
from orchestrator.streams.readers import Readers, readers
from orchestrator.task import Priority, new_id

router = pages()

PATH = "/agents"
OF_LATE = timedelta(hours=24)
MANY = 6  # optional fields; more of them wait behind a line to open

Mode = Literal["fields", "json"]
Do = Literal["start", "show"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """The form as it was typed, with what is wrong beside each field and about the whole."""

    task_id: str = field(default_factory=new_id)
    mode: Mode = "fields"
    values: Mapping[str, str] = field(default_factory=dict)
    priority: str = ""
    countdown: str = ""
    wrong: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    shown: Mapping[str, Any] | None = None  # the input, where it is to be shown as code


@router.get(PATH, dependencies=[needs(Scope.AGENTS_READ)])
async def list_agents(parts: Parts, reading: Reading, show: Shown) -> Response:
    """Every agent that this process knows."""
    found = (await routes.list_agents(parts)).items
    names = [each.name for each in found]
    return show(
        "agents.html",
        agents=found,
        figures=await _figures(reading, names),
        nothing=track.NO_FIGURES,
        looked_at=track.LOOKED_AT,
        readers=await _readers(parts, [each.queue for each in found]),
    )


@router.get(PATH + "/{name}", dependencies=[needs(Scope.AGENTS_READ)])
async def read_agent(
    name: str,
    request: Request,
    parts: Parts,
    reading: Reading,
    *,
    show: Shown,
    mode: Annotated[Mode | None, Blank, Query(alias="as")] = None,
) -> Response:
    """One agent, and the form that starts it."""
    return await _page(name, request, parts, reading, show, typed=Typed(mode=mode or "fields"))


@router.post(PATH + "/{name}", dependencies=[needs(Scope.TASKS_WRITE), own_form])
async def start(
    name: str,
    request: Request,
    parts: Parts,
    reading: Reading,
    actor: Actor,
    *,
    show: Shown,
    task_id: Annotated[str, Form(max_length=40)],
    mode: Annotated[Mode, Form()] = "fields",
    do: Annotated[Do, Form()] = "start",
    priority: Annotated[str, Form(max_length=10)] = "",
    countdown: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Start a task, on to its page; or the form again with what would be right.

    A form that is sent twice starts one task: its id stands in the form.
    """
    found = await routes.read_agent(name, parts)
    form = await request.form()
    values = {key: said for key, said in form.multi_items() if isinstance(said, str)}
    given: dict[str, Any] = {
        "task_id": task_id, "mode": mode, "values": values, "priority": priority,
        "countdown": countdown,
    }  # fmt: skip
    fields = fields_of(found.input_schema)
    task_input, wrong = _input(fields, mode, values)
    if not wrong and do == "show":
        typed = Typed(**given, shown=task_input)
        return await _page(name, request, parts, reading, show, typed=typed)
    others: list[str] = []
    if not wrong:
        try:
            started = await _start(parts, found.name, task_input, given, actor)
        except TaskIdConflict:
            given["task_id"] = new_id()
            others = [f"this form has started task {task_id}; send it again to start another one"]
        except (InvalidInput, Problem) as error:
            wrong, others = _placed(fields, mode, problem_of(error))
        else:
            return RedirectResponse(f"/tasks/{started}", 303)
    typed = Typed(**given, wrong=wrong, others=tuple(others))
    return await _page(name, request, parts, reading, show, typed=typed, status=422)


async def _start(
    parts: ApiParts, agent: str, task_input: Any, given: Mapping[str, Any], actor: str
) -> str:
    """Submit as the API does. Raises InvalidInput, TaskIdConflict, Problem, Unavailable."""
    said = {name: given[name] for name in ("task_id", "priority", "countdown") if given[name]}
    task = task_of(parts.registry, _asked(agent=agent, input=task_input, **said))
    receipt = (await submit(parts, [task], durability=None, actor=actor))[0]
    return receipt.task_id


def _asked(**said: Any) -> TaskIn:
    try:
        return TaskIn(**said)
    except ValidationError as error:
        raise invalid(error) from error


def _input(
    fields: tuple[Field, ...], mode: Mode, values: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    if fields and mode == "fields":
        return input_of(fields, values)
    try:
        return object_of(values.get("input", "")), {}
    except NotJson as error:
        return {}, {"input": str(error)}


def _placed(
    fields: tuple[Field, ...], mode: Mode, problem: Problem
) -> tuple[dict[str, str], list[str]]:
    """What is wrong of the input beside its fields, of the rest beside its own."""
    found = [(each["pointer"], each["message"]) for each in problem.errors]
    own = {at[1:]: said for at, said in found if at in {"/priority", "/countdown"}}
    rest = [(at, said) for at, said in found if at[1:] not in own]
    if not rest and not own:
        return {}, [problem.detail]
    pointers = [(at.removeprefix("/input"), said) for at, said in rest]
    if mode == "json" or not fields:
        said = "; ".join(f"{at or '/'}: {each}" for at, each in pointers)
        return own | ({"input": said} if said else {}), []
    wrong, others = beside(fields, pointers)
    return own | wrong, others


async def _page(
    name: str,
    request: Request,
    parts: ApiParts,
    reading: Database,
    show: Show,
    *,
    typed: Typed,
    status: int = 200,
) -> Response:
    found = await routes.read_agent(name, parts)
    fields = fields_of(found.input_schema)
    example = example_of(fields)
    if typed.mode == "json" and "input" not in typed.values:
        typed = Typed(mode="json", values={"input": as_json(example)})
    site = f"{request.url.scheme}://{request.url.netloc}"
    known = await _readers(parts, [found.queue])
    optional = [each for each in fields if not each.is_required]
    return show(
        "agent.html",
        status=status,
        agent=found,
        figures=(await _figures(reading, [name])).get(name),
        nothing=track.NO_FIGURES,
        looked_at=track.LOOKED_AT,
        readers=known and known[found.queue],
        fields=fields,
        required=[each for each in fields if each.is_required],
        optional=optional,
        many=len(optional) > MANY and len(optional) < len(fields),
        mode=typed.mode if fields else "json",
        typed=typed,
        priorities=[
            ("", f"the agent's: {found.priority.value}"),
            *((each.value, each.value) for each in Priority),
        ],
        code=snippets(
            parts.registry.get(name), example if typed.shown is None else typed.shown, site=site
        ),
    )


async def _figures(reading: Database, names: list[str]) -> Mapping[str, track.Figures]:
    """Agent -> how it did of late; empty where looking took too long."""
    try:
        return await track.figures(reading, names, since=datetime.now(UTC) - OF_LATE)
    except TookTooLong:
        return {}


async def _readers(parts: ApiParts, queues: list[str]) -> Mapping[str, Readers] | None:
    """Queue -> whether its work is done; None where Redis does not answer."""
    try:
        return await readers(parts.streams, sorted(set(queues)))
    except Unavailable:
        return None
