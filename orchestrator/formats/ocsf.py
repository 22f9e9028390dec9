"""OCSF (Open Cybersecurity Schema Framework): Detection Finding 2004 and Security Finding 2001.

Events of other classes are no alerts; a finding that is closed is none any more.
"""

from datetime import datetime
from typing import Any

from orchestrator.alert import LARGEST_INT, Severity
from orchestrator.errors import MalformedMessage
from orchestrator.formats.foreign import SEVERITY_WORDS, Foreign, NotAnAlert

SECURITY_FINDING, DETECTION_FINDING = 2001, 2004  # the second replaces the first from OCSF 1.1
CLOSED = 3  # activity_id; 1 is Create, 2 Update
_SEVERITIES = {
    1: Severity.INFO,
    2: Severity.LOW,
    3: Severity.MEDIUM,
    4: Severity.HIGH,
    5: Severity.CRITICAL,
    6: Severity.CRITICAL,  # "Fatal": it succeeded, and it is too late to prevent it
}


def is_ocsf(data: dict[str, Any]) -> bool:
    """True for an event of any class."""
    class_uid = data.get("class_uid")
    return isinstance(class_uid, int) and not isinstance(class_uid, bool)


def from_ocsf(data: dict[str, Any], received_at: datetime) -> dict[str, Any]:
    """The fields of an alert. Raises NotAnAlert, MalformedMessage."""
    event = Foreign(data)
    _check_class(event)
    is_new = data["class_uid"] == DETECTION_FINDING
    finding = event.inside("finding_info") if is_new else event.inside("finding")
    analytic = finding.inside("analytic") if is_new else event.inside("analytic")
    product = event.inside("metadata", "product")
    signature = finding.text("title") or analytic.text("name") or event.text("message")
    if signature is None:
        name = "finding_info" if is_new else "finding"
        raise MalformedMessage(
            f"an OCSF finding of class {data['class_uid']} has an object '{name}' with 'title',"
            " or 'message'"
        )
    types = finding.data.get("types")
    category = types[0] if isinstance(types, list) and types else None
    return {
        "source": product.text("name", "vendor_name") or "ocsf",
        "occurred_at": event.moment(
            ("time", "time_dt"), default=finding.moment(("created_time",), default=received_at)
        ),
        "severity": _severity(event),
        "signature": signature,
        "signature_id": analytic.whole("uid", LARGEST_INT),
        "category": category if isinstance(category, str) else "",
        "action": _lower(event.text("disposition", "action")),
        "host": _host(event),
        **_connection(event),
        # The objects stay whole: what was read out of them makes sense beside the rest.
        "details": event.rest(),
    }


def _check_class(event: Foreign) -> None:
    class_uid = event.data["class_uid"]
    # Not the number itself, which can have more digits than Python prints.
    known = isinstance(class_uid, int) and class_uid in (SECURITY_FINDING, DETECTION_FINDING)
    if not known:
        said = event.text("class_name") or event.whole("class_uid", LARGEST_INT)
        raise NotAnAlert(
            str(said),
            f"an OCSF event of class {str(said)!r} is no alert; findings of classes"
            f" {DETECTION_FINDING} and {SECURITY_FINDING} are",
        )
    if event.data.get("activity_id") == CLOSED:
        raise NotAnAlert("closed finding", "an OCSF finding that was closed is no alert any more")


def _severity(event: Foreign) -> Severity:
    number = event.whole("severity_id", max(_SEVERITIES))
    if number in _SEVERITIES:
        return _SEVERITIES[number]
    word = (event.text("severity") or "").strip().lower()
    # 0 is "Unknown" and 99 "Other", which is no reason to look away.
    return SEVERITY_WORDS.get(word, Severity.MEDIUM)


def _connection(event: Foreign) -> dict[str, Any]:
    """Of the first evidence; some producers have the endpoints at the top."""
    evidence = event.inside("evidences")
    near = evidence.inside("src_endpoint").data or event.inside("src_endpoint").data
    far = evidence.inside("dst_endpoint").data or event.inside("dst_endpoint").data
    how = Foreign(evidence.inside("connection_info").data or event.inside("connection_info").data)
    src, dest = Foreign(near), Foreign(far)
    return {
        "src_ip": src.text("ip"),
        "src_port": src.port("port"),
        "dest_ip": dest.text("ip"),
        "dest_port": dest.port("port"),
        "proto": how.text("protocol_name"),
        "direction": how.text("direction"),
    }


def _host(event: Foreign) -> str | None:
    """What it happened to: a device, or else the resource that is affected."""
    for device in (event.inside("device"), event.inside("evidences", "device")):
        if found := device.text("hostname", "name", "ip", "uid"):
            return found
    return event.inside("resources").text("name", "uid")


def _lower(text: str | None) -> str | None:
    # "Blocked" is what the others call "blocked".
    return text.lower() if text else None
