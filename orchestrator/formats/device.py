"""What IoT gateways send: a device's reading beyond its threshold, or a message of it."""

from datetime import datetime
from typing import Any

from orchestrator.alert import Severity
from orchestrator.errors import MalformedMessage
from orchestrator.formats.foreign import Foreign


def is_device(data: dict[str, Any]) -> bool:
    """True where a device is named, and no object `alert`: Suricata can name one, too."""
    return data.get("device") is not None and not isinstance(data.get("alert"), dict)


def from_device(data: dict[str, Any], received_at: datetime) -> dict[str, Any]:
    """The fields of an alert. Raises MalformedMessage."""
    event = Foreign(data)
    metric = event.text("metric")
    signature = event.text("signature", "message")
    if signature is None and metric is None:
        raise MalformedMessage(
            "a device's alert has 'device' and 'metric' (with 'value', 'threshold', 'severity'),"
            " or 'device' and 'message'"
        )
    # The reading stays out of the signature, so that repetitions are seen as such.
    return {
        "source": event.text("source") or "cps",
        "occurred_at": event.moment(("occurred_at", "timestamp", "time"), default=received_at),
        "severity": event.severity(default=Severity.MEDIUM),
        "signature": signature or f"{metric} beyond threshold",
        "category": event.text("category") or "device reading",
        "action": event.text("action"),
        "sensor": event.text("sensor"),
        "host": event.text("device"),
        **event.connection(),
        # `metric` again, since it is data beside value and threshold as well as a name.
        "details": event.rest() | ({"metric": metric} if metric is not None else {}),
    }
