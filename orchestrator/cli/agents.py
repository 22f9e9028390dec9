"""`aurora agents`: the agent classes that the settings name, as this machine finds them."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import opening
from orchestrator.cli.output import Format, Output, show_list, show_one

app = typer.Typer(no_args_is_help=True, help="Agents: list, show.")
SHOWN = ("name", "queue", "priority", "attempts", "timeout", "schedules", "rules", "file", "does")


@app.command("list")
def list_agents(output: Output = Format.TABLE) -> None:
    """List the agents that a worker here would run. Imports them; needs no server."""
    from orchestrator.registry import load_agents

    found = opening.settings()
    registry = load_agents(found.agents)
    show_list(
        [_summary(each, rules=registry.rules_of(each)) for each in registry],
        output,
        columns=SHOWN,
        nothing=f"no agents in {', '.join(found.agents)}",
    )


@app.command("show")
def show_agent(
    name: Annotated[str, typer.Argument(metavar="AGENT")], output: Output = Format.TABLE
) -> None:
    """Show one agent with the JSON Schemas of its input and output."""
    from orchestrator.registry import load_agents

    registry = load_agents(opening.settings().agents)
    agent = registry.get(name)
    shown = _summary(agent, rules=registry.rules_of(agent))
    shown["schedules"] = [_schedule(each) for each in agent.schedules]
    shown["input"] = agent.input_type.json_schema()
    shown["output"] = agent.output_type.json_schema(mode="serialization")
    show_one(shown, output)


def _summary(agent: Any, *, rules: Sequence[Any]) -> dict[str, Any]:
    return {
        "name": agent.name,
        "queue": agent.queue,
        "priority": agent.priority.value,
        "attempts": agent.retry.max_attempts,
        "timeout": agent.timeout,
        "concurrency": agent.concurrency,
        "isolation": str(agent.isolation),
        "schedules": len(agent.schedules),
        "rules": [each.name for each in rules],
        "file": _file(agent),
        "does": (inspect.getdoc(agent) or "").partition("\n")[0],
    }


def _schedule(crontab: Any) -> dict[str, Any]:
    return {
        "expression": crontab.expression,
        "timezone": crontab.timezone,
        "input": dict(crontab.input),
    }


def _file(agent: Any) -> str:
    path = Path(inspect.getfile(agent))
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
