"""Our own schema: what a normaliser in any language writes. `signature` and `severity` are enough.

docs/alerts.md explains it, `aurora alerts schema` prints it.
"""

from datetime import datetime
from typing import Any

from orchestrator.alert import Alert
from orchestrator.errors import MalformedMessage
from orchestrator.formats.foreign import Foreign

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"signature": "ET SCAN Nmap", "severity": "medium"},
    {
        "signature": "SSH brute force",
        "severity": "high",
        "source": "sshd-watch",
        "occurred_at": "2026-03-11T06:01:27.969394Z",
        "signature_id": 5712,
        "category": "authentication",
        "action": "blocked",
        "src_ip": "192.0.2.7",
        "src_port": 50123,
        "dest_ip": "10.0.0.4",
        "dest_port": 22,
        "proto": "TCP",
        "host": "web-1",
        "details": {"attempts": 40, "users": ["root", "admin"]},
    },
)


def is_own(data: dict[str, Any]) -> bool:
    """True where the object says what ours has to say, whatever else it says."""
    return isinstance(data.get("signature"), str) and "severity" in data


def from_own(data: dict[str, Any], received_at: datetime) -> dict[str, Any]:
    """The fields of an alert; what the schema does not know moves into `details`."""
    given = data.get("details", {})
    if not isinstance(given, dict):
        raise MalformedMessage("'details' of an alert is a JSON object")
    event = Foreign(data)
    fields = {
        "severity": event.severity(default=None) or data["severity"],
        "occurred_at": event.moment(("occurred_at", "timestamp"), default=received_at),
    }
    as_they_are = {each: data[each] for each in Alert.model_fields if each in data}
    event.read |= {"id", "kind", "severity", "details"} | (set(as_they_are) - {"occurred_at"})
    return as_they_are | fields | {"details": event.rest() | given}


def json_schema(*, ref_template: str = "#/$defs/{model}") -> dict[str, Any]:
    """The JSON Schema (2020-12) of what is written: whatever it accepts is an alert.

    It is stricter than the reader, which takes other words for a severity and cuts long text.
    """
    schema = Alert.model_json_schema(ref_template=ref_template)
    schema |= {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Alert",
        "description": "`data` of an entry on aurora:alerts or aurora:cps:alerts. Further fields"
        " are kept in `details`.",
        "required": ["signature", "severity"],
        "examples": list(EXAMPLES),
    }
    properties = schema["properties"]
    # The entry's id and its stream say these; in `data` they are for POST /api/v1/alerts alone.
    properties["id"] = {"type": "string", "format": "uuid", "description": "over HTTP; a UUID"}
    properties["kind"] |= {"description": "over HTTP; on a stream, the stream says it"}
    properties["occurred_at"]["description"] += "; default: when the entry was taken"
    return schema
