"""Suricata's EVE JSON, as its `eve-log` writes it."""

from datetime import datetime
from typing import Any

from orchestrator.alert import LARGEST_INT, LONGEST_NAME, Severity, clean_text
from orchestrator.errors import MalformedMessage
from orchestrator.formats.foreign import Foreign, NotAnAlert


def is_eve(data: dict[str, Any]) -> bool:
    """True for an event of any type."""
    return isinstance(data.get("event_type"), str)


def from_eve(data: dict[str, Any], received_at: datetime) -> dict[str, Any]:
    """The fields of an alert. Raises NotAnAlert for other types, MalformedMessage."""
    if data["event_type"] != "alert":
        event_type = clean_text(data["event_type"], LONGEST_NAME)
        raise NotAnAlert(
            event_type,
            f"a Suricata event of type {event_type!r} is no alert; only event_type 'alert' is",
        )
    event, inner = Foreign(data), Foreign(data.get("alert"))
    signature, signature_id = inner.text("signature"), inner.whole("signature_id", LARGEST_INT)
    if signature is None and signature_id is None:
        raise MalformedMessage(
            "a Suricata event of type 'alert' has an object 'alert' with 'signature',"
            " 'signature_id', 'category' and 'severity'"
        )
    fields = {
        "source": "suricata",
        "occurred_at": event.moment(("timestamp",), default=received_at),
        # Suricata's own default priority is 3.
        "severity": inner.severity(default=Severity.LOW),
        "signature": signature or f"signature {signature_id}",
        "signature_id": signature_id,
        "category": inner.text("category") or "",
        "action": inner.text("action"),
        "sensor": event.text("host"),
        **event.connection(),
    }
    # What is left of the inner object (gid, rev, metadata) keeps its place.
    event.read |= {"event_type", "alert"}
    return fields | {"details": event.rest() | {"alert": inner.rest()}}
