"""The agent `analyst`: on the real local model, and what no model can make of it."""

import json
import re
from pathlib import Path

from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from agents.analyst import model_agent
from orchestrator.app import alerts, recorder, worker
from orchestrator.client import set_submitter
from orchestrator.registry import load_agents
from tests.analyst import SAMPLE, assessed, chosen, tokens, triaged
from tests.integration.test_spine import running
from tests.support import wait_until
from tests.unit.test_analyst import FINE

ALIKE = [
    json.dumps(
        {
            "occurred_at": f"2026-01-01T00:0{minute}:00Z",
            "severity": "high",
            "signature": signature,
            "src_ip": "198.51.100.7",
            "dest_ip": "10.10.0.20",
        }
    ).encode()
    for minute, signature in enumerate(("the first of two", "the second"))
]


async def test_real_alerts_are_assessed_and_every_token_is_counted_alike(
    settings, database, tmp_path: Path
):
    """Valid answers; the record, /metrics and /usage say what the model's server has counted."""
    settings = settings.model_copy(update={"model": "local", "locks": tmp_path / "locks"})
    roles = (alerts, worker, recorder)
    async with running(settings, roles=roles, registry=load_agents(("./agents",))) as parts:
        set_submitter(parts.submitter)
        found = await triaged(parts, chosen(SAMPLE, 3))

        results = await assessed(found, timeout=150)

        assert [each.alert_id for each in results] == [each.id for each in found]

        async def agreed() -> bool:
            said = await tokens(parts)
            return said["the model's server"].output > 0 and len(set(said.values())) == 1

        await wait_until(agreed, what="the same tokens everywhere")


async def test_a_model_that_calls_tools_is_given_one_that_reads(settings, database):
    """A large model may look at the alert's own two ends; what it reads is marked as data, too."""
    offered: list[list[str]] = []
    marks: set[str] = set()

    async def obedient(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        offered.append([each.name for each in info.function_tools])
        marks.update(re.findall(r"<data-([0-9a-f]{16})>", str(messages)))
        part = messages[-1].parts[-1]
        if not isinstance(part, ToolReturnPart):
            return ModelResponse(parts=[ToolCallPart("alerts_of", {"end": "source"})])
        said = {**FINE, "what_happened": str(part.content)[:200], "evidence": ["alert", "source"]}
        return ModelResponse(parts=[ToolCallPart(info.output_tools[0].name, said)])

    roles = (alerts, worker, recorder)
    registry = load_agents(("./agents",))
    with model_agent().override(model=FunctionModel(obedient)):
        async with running(settings, roles=roles, registry=registry) as parts:
            set_submitter(parts.submitter)
            _, second = await triaged(parts, ALIKE)
            results = await assessed([second, second], timeout=30)

    assert offered == [["alerts_of"]] * 4
    assert len(marks) == 2  # one a run: what one alert may have learnt is of no use to the next
    for result in results:
        assert result.what_happened.startswith("<data-")
        assert "the first of two" in result.what_happened
