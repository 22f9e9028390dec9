"""How to start a task from elsewhere, as text to copy: curl, Python, the command line."""

import json
import shlex
from collections.abc import Mapping
from pprint import pformat
from typing import Any

from orchestrator.registry import AgentClass


def snippets(agent: AgentClass, task_input: Mapping[str, Any], *, site: str) -> dict[str, str]:
    """Where -> what to type there. `site`: the address of this server, without a slash."""
    said = json.dumps(task_input, ensure_ascii=False)
    body = json.dumps({"agent": agent.name, "input": task_input}, ensure_ascii=False)
    return {
        "Command line": f"aurora run {agent.name} {shlex.quote(said)}",
        "curl": (
            f"curl {shlex.quote(site + '/api/v1/tasks')} \\\n"
            '  -H "Authorization: Bearer $AURORA_API_KEY" \\\n'
            '  -H "Content-Type: application/json" \\\n'
            f"  -d {shlex.quote(body)}"
        ),
        "Python": _python(agent, task_input),
    }


def _python(agent: AgentClass, task_input: Mapping[str, Any]) -> str:
    given = pformat(dict(task_input), width=80, sort_dicts=False).replace("\n", "\n    ")
    return f"""\
import asyncio

import orchestrator
from {agent.__module__} import {agent.__qualname__}


async def main() -> None:
    given = {given}
    async with orchestrator.connect():
        handle = await {agent.__qualname__}.delay(given)
        print(await handle.get())


asyncio.run(main())
"""
