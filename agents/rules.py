"""Which alerts become work of which reference agent."""

from agents.triage import Triage
from orchestrator import Rule


class TriageEveryAlert(Rule):
    """Each alert by itself, whatever sent it."""

    name = "triage_every_alert"
    agent = Triage
    kinds = frozenset({"network", "cps"})
