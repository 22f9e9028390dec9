"""Which alerts become work of which reference agent."""

from agents.device_storm import DeviceStorm, Story
from agents.triage import Triage
from orchestrator import Alert, Investigation, Rule


class TriageEveryAlert(Rule):
    """Each alert by itself, whatever sent it."""

    agent = Triage
    kinds = frozenset({"network", "cps"})


class StormOfOneDevice(Rule):
    """All that one device of the plant sets off within ten minutes."""

    agent = DeviceStorm
    kinds = frozenset({"cps"})

    def matches(self, alert: Alert) -> bool:
        """Only what says whose it is."""
        return bool(alert.host)

    def correlation(self, alert: Alert) -> str | None:
        """The device."""
        return alert.host

    def input(self, alert: Alert, investigation: Investigation | None) -> Story:
        """Where the agent finds the others."""
        return Story(
            investigation_id=investigation.id if investigation else "", device=alert.host or ""
        )
