"""OCSF and Wazuh, by examples as their products write them; one id for what says the same."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.alert import Alert
from orchestrator.errors import MalformedMessage, Rejected
from orchestrator.formats.foreign import NotAnAlert
from orchestrator.formats.normalise import content_id, normalise
from tests.unit.test_alert import DEVICE, EVE, ID, NOW, json_values, unhurried

# An endpoint product's detection, with the network connection as its evidence.
DETECTION: dict[str, Any] = {
    "activity_id": 1, "activity_name": "Create", "category_uid": 2, "class_uid": 2004,
    "class_name": "Detection Finding", "type_uid": 200401, "severity_id": 4, "severity": "High",
    "time": 1773208887969, "status_id": 1, "is_alert": True, "confidence_id": 3,
    "disposition_id": 2, "disposition": "Blocked",
    "metadata": {"version": "1.3.0", "product": {"name": "Falcon", "vendor_name": "CrowdStrike"}},
    "finding_info": {
        "uid": "ldt:15dbb9d8f06b89fe", "title": "Reverse shell from a web server",
        "types": ["Command and Control"], "created_time": 1773208880000,
        "analytic": {"type_id": 1, "uid": "41002", "name": "outbound shell"},
        "attacks": [{"technique": {"uid": "T1059"}}],
    },
    "device": {"hostname": "web-1", "ip": "10.0.0.4", "type_id": 1},
    "evidences": [
        {
            "src_endpoint": {"ip": "10.0.0.4", "port": 50123},
            "dst_endpoint": {"ip": "203.0.113.80", "port": 4444},
            "connection_info": {"protocol_name": "tcp", "direction": "Outbound"},
            "process": {"name": "sh", "pid": 4711},
        },
        {"file": {"name": "x.sh"}},
    ],
}  # fmt: skip
# A cloud's finding of the class that came before, about a resource rather than a connection.
SECURITY: dict[str, Any] = {
    "activity_id": 2, "class_uid": 2001, "category_uid": 2, "class_name": "Security Finding",
    "severity_id": 1, "severity": "Informational", "time": 1659636559100, "state_id": 1,
    "metadata": {"version": "1.0.0-rc.2", "product": {"name": "Security Hub", "vendor": "AWS"}},
    "finding": {
        "uid": "arn:aws:securityhub:us-east-1:1:finding/7", "created_time": 1635449619417,
        "title": "EC2.19 Security groups should not allow unrestricted access",
        "types": ["Software and Configuration Checks"],
    },
    "resources": [{"type": "AwsEc2SecurityGroup", "uid": "arn:aws:ec2:us-east-1:1:sg-1"}],
    "cloud": {"account_uid": "123456789100", "region": "us-east-1"},
}  # fmt: skip
SSHD: dict[str, Any] = {
    "timestamp": "2026-03-11T06:01:27.969+0000",
    "rule": {
        "level": 10, "description": "sshd: brute force trying to get access to the system.",
        "id": "5712", "mitre": {"id": ["T1110"], "technique": ["Brute Force"]}, "firedtimes": 8,
        "mail": False, "groups": ["syslog", "sshd", "authentication_failures"],
    },
    "agent": {"id": "002", "name": "web-1", "ip": "10.0.0.4"}, "manager": {"name": "wazuh-1"},
    "id": "1773208887.121831", "decoder": {"parent": "sshd", "name": "sshd"},
    "full_log": "Mar 11 06:01:27 web-1 sshd[11501]: Invalid user admin from 192.0.2.7 port 42412",
    "data": {"srcip": "192.0.2.7", "srcport": "42412", "srcuser": "admin"},
    "location": "/var/log/auth.log",
}  # fmt: skip
# What Suricata wrote, as Wazuh passes it on: numbers in quotes, Suricata's own names.
SURICATA: dict[str, Any] = SSHD | {
    "rule": {"level": 3, "description": "Suricata: Alert - ET SCAN Nmap", "id": "86601",
             "groups": ["ids", "suricata"]},
    "data": {"src_ip": "192.0.2.7", "src_port": "4000", "dest_ip": "10.0.0.4", "dest_port": "80",
             "proto": "TCP", "app_proto": "http", "event_type": "alert",
             "alert": {"action": "allowed", "signature": "ET SCAN Nmap", "severity": "2"}},
}  # fmt: skip
SYSMON: dict[str, Any] = SSHD | {
    "rule": {"level": 15, "description": "Mimikatz", "id": "92900", "groups": ["sysmon"]},
    "data": {"win": {"eventdata": {"sourceIp": "10.0.0.9", "destinationIp": "203.0.113.5",
                                   "destinationPort": "443", "protocol": "tcp"},
                     "system": {"eventID": "3", "computer": "PC-9"}}},
}  # fmt: skip
EXAMPLES = (DETECTION, SECURITY, SSHD, SURICATA, SYSMON)


def read(data: dict[str, Any]) -> Alert:
    return normalise(data, id=ID, kind="network", received_at=NOW)


def test_a_detection_finding_is_read():
    """Rule, product, machine and connection; the evidence stays whole."""
    alert = read(DETECTION)

    assert (alert.source, alert.severity, alert.action) == ("Falcon", "high", "blocked")
    assert (alert.signature, alert.signature_id) == ("Reverse shell from a web server", 41002)
    assert alert.occurred_at == datetime(2026, 3, 11, 6, 1, 27, 969000, tzinfo=UTC)
    assert (alert.src_ip, alert.src_port) == ("10.0.0.4", 50123)
    assert (alert.dest_ip, alert.dest_port, alert.proto) == ("203.0.113.80", 4444, "tcp")
    assert (alert.host, alert.category) == ("web-1", "Command and Control")
    assert alert.details["evidences"] == DETECTION["evidences"]
    assert "time" not in alert.details


def test_a_security_finding_is_read():
    """The older class has its finding under another name, and here no connection at all."""
    alert = read(SECURITY)

    assert (alert.source, alert.severity) == ("Security Hub", "info")
    assert alert.signature.startswith("EC2.19")
    assert (alert.src_ip, alert.host) == (None, "arn:aws:ec2:us-east-1:1:sg-1")
    assert alert.details["cloud"] == SECURITY["cloud"]


@pytest.mark.parametrize(
    ("given_severity", "expected"),
    [
        ({"severity_id": 2}, "low"), ({"severity_id": 5}, "critical"),
        ({"severity_id": 6}, "critical"), ({"severity_id": 0, "severity": "Unknown"}, "medium"),
        ({"severity_id": 99, "severity": "severe"}, "high"), ({"severity_id": None}, "high"),
        ({"severity_id": "5"}, "critical"),
    ],
)  # fmt: skip
def test_ocsf_severities(given_severity: dict[str, Any], expected: str):
    """By number, or else by word; unknown is no reason to look away."""
    assert read(DETECTION | given_severity).severity == expected


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"class_uid": 4001, "class_name": "Network Activity"}, "'Network Activity'"),
        ({"class_uid": 2003, "class_name": None}, "'2003'"),
        ({"class_uid": 10**4_000}, "2004 and 2001"),
        ({"activity_id": 3}, "closed"),
    ],
)
def test_other_ocsf_events_are_no_alerts(change: dict[str, Any], hint: str):
    """Nothing is wrong with them: they are skipped, and not set aside."""
    with pytest.raises(NotAnAlert, match=hint):
        read(DETECTION | change)


def test_a_wazuh_alert_is_read():
    """Who, where, which rule; and its own id for whoever looks it up there."""
    alert = read(SSHD)

    assert (alert.source, alert.severity, alert.signature_id) == ("wazuh", "medium", 5712)
    assert alert.signature == "sshd: brute force trying to get access to the system."
    assert (alert.src_ip, alert.src_port, alert.dest_ip) == ("192.0.2.7", 42412, None)
    assert (alert.host, alert.sensor) == ("web-1", "wazuh-1")
    assert alert.category == "syslog, sshd, authentication_failures"
    assert alert.details["id"] == "1773208887.121831"
    assert alert.details["rule"]["mitre"]["id"] == ["T1110"]


def test_what_wazuh_passes_on_keeps_its_connection():
    """Suricata's names and Sysmon's, numbers in quotes."""
    suricata, sysmon = read(SURICATA), read(SYSMON)

    assert (suricata.src_port, suricata.dest_ip, suricata.dest_port) == (4000, "10.0.0.4", 80)
    assert (suricata.action, suricata.app_proto, suricata.severity) == ("allowed", "http", "info")
    assert (sysmon.src_ip, sysmon.dest_port, sysmon.severity) == ("10.0.0.9", 443, "critical")


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0, "info"), (3, "info"), (4, "low"), (7, "medium"), (12, "high"), ("15", "critical")],
)
def test_wazuhs_levels_become_words(level: Any, expected: str):
    """0 to 16."""
    assert read(SSHD | {"rule": SSHD["rule"] | {"level": level}}).severity == expected


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (DETECTION | {"finding_info": {"uid": "x", "analytic": {}}}, "'finding_info' with 'title'"),
        (SECURITY | {"finding": []}, "'finding' with 'title'"),
        (SSHD | {"rule": {"level": 99, "id": "1"}}, "0 to 16"),
        (SSHD | {"rule": {"level": 5}}, "'description'"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(data: dict[str, Any], hint: str):
    """P10."""
    with pytest.raises(MalformedMessage, match=hint):
        read(data)


def _hostile(draw: st.DrawFn, value: Any) -> Any:
    """The same, with anything in the place of some of its parts."""
    if draw(st.integers(0, 9)) == 0:
        return draw(json_values)
    if isinstance(value, dict):
        return {name: _hostile(draw, each) for name, each in value.items()}
    if isinstance(value, list):
        return [_hostile(draw, each) for each in value]
    return value


@st.composite
def hostile_examples(draw: st.DrawFn) -> dict[str, Any]:
    example = draw(st.sampled_from(EXAMPLES))
    return {name: _hostile(draw, value) for name, value in example.items()}


@unhurried
@given(data=hostile_examples())
def test_a_hostile_event_is_an_alert_or_rejected(data: dict[str, Any]):
    """Whatever stands in whichever place."""
    try:
        alert = read(data)
    except Rejected:
        return

    assert Alert.model_validate_json(alert.model_dump_json()) == alert


def test_the_same_content_is_the_same_alert():
    """However it is spelt; an id of its own wins; another time is another alert."""
    shuffled = dict(reversed(EVE.items()))

    assert content_id(json.loads(json.dumps(shuffled, indent=4))) == content_id(EVE)
    assert content_id(DEVICE | {"id": ID.upper()}) == ID
    assert content_id(SSHD) != content_id(SSHD | {"id": "1773208887.121832"})
    later = EVE | {"timestamp": (NOW + timedelta(seconds=1)).isoformat()}
    assert content_id(later) != content_id(EVE)


@unhurried
@given(data=st.dictionaries(st.text(alphabet=st.characters(exclude_categories=())), json_values))
def test_any_content_has_an_id(data: dict[str, Any]):
    """And the same one again."""
    assert content_id(data) == content_id(dict(reversed(data.items())))
