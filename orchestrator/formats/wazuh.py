"""Wazuh's alerts, as its manager writes them into alerts.json."""

from datetime import datetime
from typing import Any

from orchestrator.alert import LARGEST_INT, Severity
from orchestrator.errors import MalformedMessage
from orchestrator.formats.foreign import Foreign

HIGHEST_LEVEL = 16
# The lowest level of each, as Wazuh's own dashboard draws the lines; but what it calls low begins
# at 4: levels up to 3 have "no security relevance" in its classification of rules.
_LEVELS = (
    (15, Severity.CRITICAL),
    (12, Severity.HIGH),
    (7, Severity.MEDIUM),
    (4, Severity.LOW),
    (0, Severity.INFO),
)


def is_wazuh(data: dict[str, Any]) -> bool:
    """True where a rule with a level has fired."""
    rule = data.get("rule")
    return isinstance(rule, dict) and "level" in rule


def from_wazuh(data: dict[str, Any], received_at: datetime) -> dict[str, Any]:
    """The fields of an alert. Raises MalformedMessage."""
    event, rule = Foreign(data), Foreign(data["rule"])
    level, rule_id = rule.whole("level", HIGHEST_LEVEL), rule.whole("id", LARGEST_INT)
    description = rule.text("description")
    if level is None or (description is None and rule_id is None):
        raise MalformedMessage(
            "an alert of Wazuh has an object 'rule' with 'level' (0 to 16), 'id' and 'description'"
        )
    groups = rule.data.get("groups")
    named = [each for each in groups if isinstance(each, str)] if isinstance(groups, list) else []
    event.read.add("rule")
    return {
        "source": "wazuh",
        "occurred_at": event.moment(("timestamp", "@timestamp"), default=received_at),
        "severity": next(severity for least, severity in _LEVELS if level >= least),
        "signature": description or f"rule {rule_id}",
        "signature_id": rule_id,
        "category": ", ".join(named),
        "sensor": event.inside("manager").text("name"),
        "host": event.inside("agent").text("name", "ip", "id"),
        **_connection(event),
        # Wazuh's own `id` is no UUID: it stays, for whoever looks the alert up over there.
        "details": event.rest() | {"rule": rule.rest()},
    }


def _connection(event: Foreign) -> dict[str, Any]:
    """As its decoders name it; Suricata's events and Sysmon's keep their own names."""
    data = event.inside("data")
    sysmon = event.inside("data", "win", "eventdata")
    return {
        "src_ip": data.text("srcip", "src_ip") or sysmon.text("sourceIp", "ipAddress"),
        "src_port": _first(data.port("srcport"), data.port("src_port"), sysmon.port("sourcePort")),
        "dest_ip": data.text("dstip", "dest_ip") or sysmon.text("destinationIp"),
        "dest_port": _first(
            data.port("dstport"), data.port("dest_port"), sysmon.port("destinationPort")
        ),
        "proto": data.text("protocol", "proto") or sysmon.text("protocol"),
        "app_proto": data.text("app_proto"),
        "direction": data.text("direction"),
        "action": data.text("action") or event.inside("data", "alert").text("action"),
    }


def _first(*values: int | None) -> int | None:
    return next((each for each in values if each is not None), None)
