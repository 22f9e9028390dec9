"""Sums up what one device set off: which readings, how often, from when to when, how serious.

One alert of a plant is rarely alone: a pump that fails crosses every threshold it has. The rule in
`agents/rules.py` holds a device's alerts together; this agent reads them all and sums them up.
"""

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from orchestrator import Agent, RunContext, Severity

TOP = 20  # signatures; a device with more has a fault of another kind


class Story(BaseModel):
    """Which investigation, and whose."""

    model_config = ConfigDict(frozen=True)

    investigation_id: str
    device: str


class Repeated(BaseModel):
    """One signature of the story."""

    signature: str
    count: int
    severity: Severity  # the highest
    first_at: AwareDatetime
    last_at: AwareDatetime


class DeviceSummary(BaseModel):
    """What the device said, the most serious first. Later alerts of the story are not in it."""

    device: str
    alerts: int
    severity: Severity
    signatures: list[Repeated]  # TOP of them
    more_signatures: int


# As text "critical" sorts before "info", so ranks are compared.
_RANKS = ", ".join(f"'{each}'" for each in Severity)
SIGNATURES = f"""
    SELECT a.signature, count(*) AS count, min(a.occurred_at) AS first_at,
           max(a.occurred_at) AS last_at,
           max(array_position(ARRAY[{_RANKS}], a.severity)) - 1 AS rank
    FROM investigation_alerts m JOIN alerts a ON a.id = m.alert_id
    WHERE m.investigation_id = CAST(:id AS uuid)
    GROUP BY a.signature
    ORDER BY rank DESC, count DESC, a.signature
"""  # noqa: S608 - the five severities are our own


class DeviceStorm(Agent[Story, DeviceSummary]):
    """Sum up the alerts of one device. Reads the record; changes nothing."""

    name = "device_storm"

    async def run(self, task_input: Story, ctx: RunContext) -> DeviceSummary:
        """One query, grouped in Postgres: a storm may have ten thousand alerts."""
        rows = await ctx.query(SIGNATURES, id=task_input.investigation_id)
        return summed_up(task_input.device, rows)


def summed_up(device: str, rows: list[dict[str, Any]]) -> DeviceSummary:
    """The summary, from the rows alone."""
    severities = list(Severity)
    return DeviceSummary(
        device=device,
        alerts=sum(row["count"] for row in rows),
        severity=severities[max((row["rank"] for row in rows), default=0)],
        signatures=[
            Repeated.model_validate({**row, "severity": severities[row["rank"]]})
            for row in rows[:TOP]
        ],
        more_signatures=max(0, len(rows) - TOP),
    )
