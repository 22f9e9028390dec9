"""The agent `analyst`: on the real local model, and what no model can make of it."""

from pathlib import Path

from orchestrator.app import alerts, recorder, worker
from orchestrator.client import set_submitter
from orchestrator.registry import load_agents
from tests.analyst import SAMPLE, assessed, chosen, tokens, triaged
from tests.integration.test_spine import running
from tests.support import wait_until


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
