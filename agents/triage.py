"""Decides how serious one alert is and what to do about it, by rules that an analyst can read.

The tables at the top are meant to be edited: who is inside, what is precious, what counts how
much. The score starts at the sensor's severity and each rule that applies adds its points and one
sentence. No randomness and no clock: the same alert with the same history gets the same verdict.
"""

import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fnmatch import fnmatch
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator import Agent, Alert, RunContext, Severity

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Who is inside. Written out rather than asked of `is_private`, which also calls the documentation
# ranges private, and because a site's own public ranges belong here as well.
INSIDE_NETWORKS = tuple(
    ipaddress.ip_network(each)
    for each in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
        "::1/128",
    )
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A machine or network, known by address or by host name (`plc-*`), and what it adds."""

    where: str
    label: str
    points: int


# What is precious. Of several that apply to an alert the most precious counts.
ASSETS = (
    Asset("10.10.0.10/32", "the domain controller", 20),
    Asset("10.10.0.20/32", "the file server", 15),
    Asset("10.10.0.0/24", "the server network", 10),
    Asset("10.40.0.0/24", "the control network", 15),
    Asset("plc-*", "a process controller", 15),
)


@dataclass(frozen=True, slots=True)
class Class:
    """One line of the table of classes.

    `repeated`: points once the same thing was seen 5, 20 and 100 times within the hour before.
    `hostile`: could be an attack, so that direction and asset count; a noisy printer beside a
    domain controller is still a noisy printer.
    """

    label: str
    pattern: str  # searched for in "signature | category", without regard to case
    points: int
    repeated: tuple[int, int, int]
    hostile: bool = True


# What it is about. The first line that matches counts, so the most serious stand first.
CLASSES = (
    Class(
        "credential theft",
        r"credential|kerberoast|ticket roasting|lsass|dcsync|pass.the.(hash|ticket)|mimikatz",
        30,
        (5, 10, 10),
    ),
    Class("exfiltration", r"exfil|data theft|tunnel", 30, (5, 10, 10)),
    Class(
        "lateral movement",
        r"lateral|admin(istrative)? share|psexec|remote service|wmi exec",
        25,
        (5, 10, 10),
    ),
    Class(
        "command and control",
        r"beacon|command.and.control|\bc2\b|\bcnc\b|botnet|trojan|malware|backdoor",
        25,
        (10, 15, 20),
    ),
    Class("phishing", r"phish|lookalike|macro document|malicious attachment", 20, (0, 5, 10)),
    Class("safety function", r"safety|interlock|emergency stop", 30, (5, 10, 10)),
    Class(
        "exploitation",
        r"exploit|shellcode|injection|web application attack|privilege gain|overflow attempt",
        15,
        (5, 5, 5),
    ),
    # A scanner outside that keeps scanning is less news every time.
    Class("scanning", r"scan|sweep|probe|guessing|brute|information leak", 0, (0, 0, -5)),
    # One odd certificate is nothing; hundreds of contacts with it are a pattern.
    Class(
        "odd TLS",
        r"certificate|self.signed|demo ca|\btls\b|\bssl\b|\bja3",
        -5,
        (5, 15, 30),
        hostile=False,
    ),
    Class(
        "protocol irregularity",
        r"protocol|applayer|malformed|checksum|truncated",
        -10,
        (0, -5, -10),
        hostile=False,
    ),
    Class(
        "policy",
        r"policy|corporate privacy|not suspicious|cleartext",
        -5,
        (0, -5, -10),
        hostile=False,
    ),
    Class("device reading", r"device reading|beyond threshold", 5, (5, 10, 10), hostile=False),
    Class("unclassified", r"", 0, (0, 5, 10)),
)

BASE_POINTS = {
    Severity.INFO: 5,
    Severity.LOW: 15,
    Severity.MEDIUM: 35,
    Severity.HIGH: 55,
    Severity.CRITICAL: 75,
}
# From this score on the verdict has this severity.
SEVERITY_FROM = (
    (85, Severity.CRITICAL),
    (60, Severity.HIGH),
    (35, Severity.MEDIUM),
    (15, Severity.LOW),
    (0, Severity.INFO),
)
REPEATED_FROM = (5, 20, 100)  # times in an hour, for the three figures of `Class.repeated`
MANY_TARGETS = 5  # a machine inside that does the same to so many others is working through a list
MANY_TARGETS_POINTS = 15
BLOCKED_POINTS = -15
CONTAIN_FROM, INVESTIGATE_FROM, WATCH_FROM = 75, 40, 20
LONGEST_QUOTE = 120  # characters


class Side(StrEnum):
    """Where an address is, seen from us."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    UNKNOWN = "unknown"


# Who opened the connection, and to whom.
DIRECTIONS = {
    (Side.INSIDE, Side.OUTSIDE): (10, "a machine inside talks to the outside"),
    (Side.INSIDE, Side.INSIDE): (10, "both ends are inside, so the perimeter is behind it"),
    (Side.OUTSIDE, Side.INSIDE): (0, "it comes from outside"),
    (Side.OUTSIDE, Side.OUTSIDE): (-10, "neither end is ours"),
}


class Action(StrEnum):
    """What to do next; nothing else is ever recommended."""

    CLOSE = "close"
    TUNE_RULE = "tune_rule"  # too much of too little: make the sensor's rule quieter
    WATCH = "watch"
    CHECK_DEVICE = "check_device"  # for the people who run the plant
    INVESTIGATE = "investigate"
    CONTAIN = "contain"  # isolate the machine first, ask afterwards


class Verdict(BaseModel):
    """How serious one alert is, and why."""

    model_config = ConfigDict(frozen=True)

    alert_id: str
    severity: Severity
    score: int = Field(ge=0, le=100)
    classification: str  # a label of CLASSES
    action: Action
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class History:
    """What the record knows of the hour before an alert."""

    seen: int  # same signature, same source
    targets: int  # different destinations among them


@dataclass(frozen=True, slots=True)
class Reason:
    """Points for the score, and the sentence that says why."""

    points: int
    sentence: str


class Triage(Agent[Alert, Verdict]):
    """Decide how serious one alert is. Reads the record; changes nothing."""

    name = "triage"
    timeout = timedelta(minutes=1)

    async def run(self, task_input: Alert, ctx: RunContext) -> Verdict:
        """One indexed query, then rules."""
        history = await look_up(task_input, ctx)
        return judge(task_input, history)


# The hour is the alert's own, not the wall clock's: a repeated attempt and a replayed capture see
# the same history. The hour is taken off in Postgres, whose years go below 1.
_SEEN = """
    SELECT count(*) AS seen, count(DISTINCT dest_ip) AS targets
    FROM alerts
    WHERE {same_signature} AND {same_origin}
      AND occurred_at >= CAST(:until AS timestamptz) - interval '1 hour'
      AND occurred_at <= :until AND CAST(id AS text) <> :id
"""
# The number as well where there is one, because the table is indexed by it; the words too, because
# two sensors may number differently.
SAME_SIGNATURE = "signature = :signature"
SAME_NUMBER = "signature_id = :signature_id AND signature = :signature"
SAME_ADDRESS = "src_ip = :origin"
# A device's alert often has no address.
SAME_HOST = "src_ip IS NULL AND host = :origin"
SAME_SOURCE = "src_ip IS NULL AND host IS NULL AND source = :origin"


async def look_up(alert: Alert, ctx: RunContext) -> History:
    """How often the same signature came from the same origin in the hour before."""
    values: dict[str, Any] = {
        # Postgres' text holds no NUL, as a parameter neither; the record has U+FFFD in its place.
        "signature": alert.signature.replace("\x00", "\ufffd"),
        "origin": (alert.src_ip or alert.host or alert.source).replace("\x00", "\ufffd"),
        "until": alert.occurred_at,
        "id": alert.id,
    }
    same_signature = SAME_SIGNATURE
    if alert.signature_id is not None:
        same_signature = SAME_NUMBER
        values["signature_id"] = alert.signature_id
    same_origin = SAME_ADDRESS if alert.src_ip else SAME_HOST if alert.host else SAME_SOURCE
    # Only constants of ours go into the text; what the alert brought goes in as parameters.
    rows = await ctx.query(
        _SEEN.format(same_signature=same_signature, same_origin=same_origin), **values
    )
    found = rows[0] if rows else {}
    return History(seen=int(found.get("seen") or 0), targets=int(found.get("targets") or 0))


def judge(alert: Alert, history: History) -> Verdict:
    """The verdict, from the alert and its history alone."""
    found = classify(alert)
    reasons = [
        Reason(
            BASE_POINTS[alert.severity],
            f"{quoted(alert.source)} rates {quoted(alert.signature)} as {alert.severity}",
        ),
        Reason(found.points, f"signature and category put it in the class {quoted(found.label)}"),
        *(_about_place(alert) if found.hostile else ()),
        *_about_history(alert, found, history),
        *_about_action(alert),
    ]
    score = min(100, max(0, sum(each.points for each in reasons)))
    return Verdict(
        alert_id=alert.id,
        severity=next(severity for least, severity in SEVERITY_FROM if score >= least),
        score=score,
        classification=found.label,
        action=recommend(score, found, history),
        reasons=[f"{_capitalised(each.sentence)} ({each.points:+d})." for each in reasons],
    )


def recommend(score: int, found: Class, history: History) -> Action:
    """The first line that applies."""
    repeated = history.seen >= REPEATED_FROM[1]
    table = (
        (found.label == "device reading" and score >= WATCH_FROM, Action.CHECK_DEVICE),
        (found.hostile and score >= CONTAIN_FROM, Action.CONTAIN),
        (score >= INVESTIGATE_FROM, Action.INVESTIGATE),
        (not found.hostile and repeated and found.repeated[1] < 0, Action.TUNE_RULE),
        (score >= WATCH_FROM, Action.WATCH),
        (True, Action.CLOSE),
    )
    return next(action for applies, action in table if applies)


def classify(alert: Alert) -> Class:
    """The line of CLASSES that an alert falls under."""
    text = f"{alert.signature} | {alert.category}"
    return next(each for each in CLASSES if re.search(each.pattern, text, re.IGNORECASE))


def side_of(text: str | None) -> Side:
    """Inside, outside, or unknown where it is no address."""
    address = _address(text)
    if address is None:
        return Side.UNKNOWN
    inside = any(address in each for each in INSIDE_NETWORKS)
    return Side.INSIDE if inside else Side.OUTSIDE


def ends_of(alert: Alert) -> tuple[str | None, str | None]:
    """Who opened the connection, and to whom.

    Suricata's source is the sender of the packet that matched; where that was the server's answer
    (`to_client`), the client is the destination.
    """
    if alert.direction == "to_client":
        return alert.dest_ip, alert.src_ip
    return alert.src_ip, alert.dest_ip


def quoted(text: str) -> str:
    """Text from an alert as a reason may carry it: short, one line, no control characters."""
    if len(text) > LONGEST_QUOTE:
        text = text[: LONGEST_QUOTE - 1] + "…"
    return '"' + "".join(each if each.isprintable() else "\ufffd" for each in text) + '"'


def _about_place(alert: Alert) -> list[Reason]:
    client, server = ends_of(alert)
    direction = DIRECTIONS.get((side_of(client), side_of(server)))
    reasons = []
    if direction and client and server:
        points, sentence = direction
        reasons.append(Reason(points, f"{sentence}: {quoted(client)} to {quoted(server)}"))
    asset = _asset_of(alert)
    if asset:
        reasons.append(Reason(asset.points, f"it concerns {asset.label} ({asset.where})"))
    return reasons


def _asset_of(alert: Alert) -> Asset | None:
    """The most precious asset at either end, or under the alert's host name."""
    ends = [each for each in (_address(alert.src_ip), _address(alert.dest_ip)) if each]
    host = (alert.host or "").lower()
    known = [
        each
        for each in ASSETS
        if ("/" in each.where and any(end in ipaddress.ip_network(each.where) for end in ends))
        or ("/" not in each.where and fnmatch(host, each.where))
    ]
    return max(known, key=lambda each: each.points, default=None)


def _about_history(alert: Alert, found: Class, history: History) -> list[Reason]:
    reasons = []
    steps = sum(history.seen >= least for least in REPEATED_FROM)
    if steps:
        points = found.repeated[steps - 1]
        reasons.append(
            Reason(points, f"the same came {history.seen} times from there in the hour before")
        )
    # Only from inside: outside, everybody scans everybody.
    if found.hostile and history.targets >= MANY_TARGETS and side_of(alert.src_ip) is Side.INSIDE:
        reasons.append(
            Reason(
                MANY_TARGETS_POINTS,
                f"it went to {history.targets} different destinations in the hour before",
            )
        )
    return reasons


def _about_action(alert: Alert) -> list[Reason]:
    if alert.action in {"blocked", "dropped", "rejected"}:
        return [Reason(BLOCKED_POINTS, "the sensor blocked it")]
    return []


def _address(text: str | None) -> Address | None:
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    # ::ffff:10.0.0.1 is 10.0.0.1 in other clothes.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
