"""What an alert is, how what sensors send becomes one, and which alerts become tasks.

Values and rules only; the alert handlers and the API call `normalise`, agents declare `AlertRule`s.
Alerts are written by attackers as much as by sensors: text is bounded here and never trusted, and
whoever shows it escapes it.
"""

import math
import re
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from orchestrator.errors import ConfigurationError, MalformedMessage, Rejected
from orchestrator.task import Priority

# Characters; longer text is cut and ends with an ellipsis. A Suricata signature is at most a few
# hundred, an event's printable payload a few thousand.
LONGEST_NAME = 200
LONGEST_SIGNATURE = 1_000
LONGEST_DETAIL = 32_768
# Suricata nests about seven deep (dns.answers[].soa); more is someone trying our stack.
DEEPEST_DETAIL = 16
LARGEST_INT = 2**63 - 1  # Postgres' bigint
_SURROGATES = re.compile("[\ud800-\udfff]")
MILLISECONDS_FROM = 1e11  # as seconds this would be the year 5138: epoch milliseconds instead


class AlertKind(StrEnum):
    """Which stream an alert came on."""

    NETWORK = "network"  # aurora:alerts
    CPS = "cps"  # aurora:cps:alerts: cyber-physical systems, IoT


class Severity(StrEnum):
    """How serious; compare by `rank`, since as text "critical" sorts before "info"."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info, 4 for critical."""
        return list(Severity).index(self)


# Words that sensors and gateways use for severities, beside our own five.
_SEVERITY_WORDS = {each.value: each for each in Severity} | {
    "informational": Severity.INFO,
    "notice": Severity.INFO,
    "debug": Severity.INFO,
    "minor": Severity.LOW,
    "moderate": Severity.MEDIUM,
    "warning": Severity.MEDIUM,
    "warn": Severity.MEDIUM,
    "major": Severity.HIGH,
    "error": Severity.HIGH,
    "severe": Severity.HIGH,
    "crit": Severity.CRITICAL,
    "fatal": Severity.CRITICAL,
    "emergency": Severity.CRITICAL,
}
# Suricata's priorities: 1 is the most serious; classification.config uses 1 to 4, rules up to 255.
_SEVERITY_NUMBERS = {1: Severity.HIGH, 2: Severity.MEDIUM, 3: Severity.LOW}


class NotAnAlert(Rejected):
    """A well-formed Suricata event of another type (flow, dns, stats ...): nothing to decide."""

    def __init__(self, event_type: str) -> None:
        self.event_type = event_type
        super().__init__(
            f"a Suricata event of type {event_type!r} is no alert; only event_type 'alert' is"
        )


def clean_text(text: str, longest: int) -> str:
    """At most `longest` characters, encodable as UTF-8; NUL and control characters stay."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    # A lone surrogate is legal in a JSON escape and in no encoding; one would stop the recorder.
    return _SURROGATES.sub("\ufffd", text)


def _bounded(longest: int) -> BeforeValidator:
    # Before, not after: pydantic refuses text with lone surrogates.
    return BeforeValidator(
        lambda value: clean_text(value, longest) if isinstance(value, str) else value
    )


def _clean_detail(value: Any, depth: int = 0) -> Any:
    """The same JSON value with text bounded, and without what JSON or Postgres cannot hold."""
    if isinstance(value, dict | list) and depth >= DEEPEST_DETAIL:
        return "…"
    if isinstance(value, dict):
        return {
            clean_text(str(key), LONGEST_NAME): _clean_detail(each, depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_clean_detail(each, depth + 1) for each in value]
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        value = hex(value)  # Python refuses to print very long decimals
    elif isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    return clean_text(value, LONGEST_DETAIL) if isinstance(value, str) else value


Name = Annotated[str, _bounded(LONGEST_NAME)]
Signature = Annotated[str, _bounded(LONGEST_SIGNATURE)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Details = Annotated[dict[str, Any], BeforeValidator(_clean_detail)]


class Alert(BaseModel):
    """One alert in one shape, whichever sensor saw it. What it says is evidence, not truth.

    Addresses are text: a sensor's odd spelling is data, and `ipaddress` judges it where needed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str  # canonical text of a UUID; the message's
    kind: AlertKind = AlertKind.NETWORK
    source: Name = "unknown"  # the product that raised it: "suricata"
    occurred_at: AwareDatetime
    severity: Severity
    signature: Signature
    signature_id: Annotated[int, Field(ge=0, le=LARGEST_INT)] | None = None
    category: Name = ""
    action: Name | None = None  # what the sensor did: "allowed", "blocked"
    src_ip: Name | None = None
    src_port: Port | None = None
    dest_ip: Name | None = None
    dest_port: Port | None = None
    proto: Name | None = None
    app_proto: Name | None = None
    direction: Name | None = None  # as the sensor says it: "to_server", "to_client"
    sensor: Name | None = None  # who saw it
    host: Name | None = None  # the machine or device that it is about
    details: Details = Field(default_factory=dict)  # http, tls, dns, flow ... as they came

    @field_validator("id")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return str(UUID(value))


def normalise(data: dict[str, Any], *, id: str, kind: str, received_at: datetime) -> Alert:  # noqa: A002 - the wire's word
    """Make an alert of what a stream's `data` brought.

    Understands our own schema, Suricata's EVE JSON (`event_type` "alert") and what IoT gateways
    send (`device`, `metric`, `value`, `threshold`, `severity`). `id` and `kind` are the envelope's
    and win over any in `data`, so a message published twice is one alert. A field that cannot be
    what its name says stays in `details` rather than costing the alert; so does an unreadable
    timestamp, in whose place `received_at` (aware) stands.

    Raises NotAnAlert for other EVE events, MalformedMessage for anything else.
    """
    fields = _fields_of(data, received_at)
    try:
        return Alert.model_validate(fields | {"id": id, "kind": kind})
    except ValidationError as error:
        problems = "; ".join(
            f"{'/'.join(str(part) for part in each['loc']) or 'data'}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False)
        )
        raise MalformedMessage(
            f"not a valid alert: {problems}; see the schema of Alert for what each field holds"
        ) from error


def _fields_of(data: dict[str, Any], received_at: datetime) -> dict[str, Any]:
    event_type, device = data.get("event_type"), data.get("device")
    if isinstance(data.get("signature"), str) and "severity" in data and event_type is None:
        return _from_own_schema(data, received_at)
    if device is not None and not isinstance(data.get("alert"), dict):
        return _from_device(data, received_at)
    if isinstance(event_type, str):
        return _from_eve(data, received_at)
    raise MalformedMessage(
        "not an alert; send one of: a Suricata EVE event (event_type 'alert' with an object"
        " 'alert'), a device's alert ('device' and 'metric' or 'message'), or our own schema"
        " ('signature' and 'severity' at least)"
    )


def _from_own_schema(data: dict[str, Any], received_at: datetime) -> dict[str, Any]:
    """Our schema; what it does not know moves into `details`, so that nothing is lost."""
    given = data.get("details", {})
    if not isinstance(given, dict):
        raise MalformedMessage("'details' of an alert is a JSON object")
    event = _Event(data)
    fields = {
        "severity": event.severity(default=None) or data["severity"],
        "occurred_at": event.moment(("occurred_at", "timestamp"), default=received_at),
    }
    as_they_are = {each: data[each] for each in Alert.model_fields if each in data}
    event.read |= {"id", "kind", "severity", "details"} | (set(as_they_are) - {"occurred_at"})
    return as_they_are | fields | {"details": event.rest() | given}


def _from_eve(data: dict[str, Any], received_at: datetime) -> dict[str, Any]:
    """Suricata's EVE JSON, as `eve-log` writes it."""
    if data["event_type"] != "alert":
        raise NotAnAlert(clean_text(data["event_type"], LONGEST_NAME))
    found = data.get("alert")
    event, inner = _Event(data), _Event(found if isinstance(found, dict) else {})
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


def _from_device(data: dict[str, Any], received_at: datetime) -> dict[str, Any]:
    """A device's alert: a reading beyond its threshold, or a message."""
    event = _Event(data)
    metric = event.text("metric")
    signature = event.text("signature") or event.text("message")
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


class _Event:
    """Reads fields out of a foreign object and remembers which; the rest becomes details."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.read: set[str] = set()

    def text(self, name: str) -> str | None:
        """The text under this name, not empty."""
        value = self.data.get(name)
        if isinstance(value, str) and value:
            self.read.add(name)
            return value
        return None

    def whole(self, name: str, largest: int) -> int | None:
        """The whole number under this name, 0 to `largest`."""
        value = self.data.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest:
            self.read.add(name)
            return value
        return None

    def moment(self, names: Iterable[str], *, default: datetime) -> datetime:
        """The first readable time under these names, in UTC."""
        for name in names:
            found = _moment(self.data.get(name))
            if found is not None:
                self.read.add(name)
                return found
        return default

    def severity(self, *, default: Severity | None) -> Severity | None:
        """The severity, from a word or from Suricata's number (1 high, 2, 3, 4 and more info)."""
        value = self.data.get("severity")
        found = None
        if isinstance(value, str):
            found = _SEVERITY_WORDS.get(value.strip().lower())
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            found = _SEVERITY_NUMBERS.get(value, Severity.INFO)
        if found is None:
            return default
        self.read.add("severity")
        return found

    def connection(self) -> dict[str, Any]:
        """Who spoke with whom, and how."""
        texts = ("src_ip", "dest_ip", "proto", "app_proto", "direction")
        return {name: self.text(name) for name in texts} | {
            name: self.whole(name, 65_535) for name in ("src_port", "dest_port")
        }

    def rest(self) -> dict[str, Any]:
        """Everything that was not read, as it came."""
        return {name: value for name, value in self.data.items() if name not in self.read}


def _moment(value: object) -> datetime | None:
    try:
        match value:
            case str():
                found = datetime.fromisoformat(value.strip())
                # A naive time means UTC, as everywhere on the wire.
                return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
            case bool():
                return None
            case int() | float():
                seconds = value / 1000 if abs(value) >= MILLISECONDS_FROM else value
                return datetime.fromtimestamp(seconds, UTC)
            case datetime() if value.tzinfo:
                return value.astimezone(UTC)
            case _:
                return None
    except (ValueError, OverflowError, OSError):
        return None


def urgent_first(alert: Alert) -> Priority:
    """High and critical alerts overtake the others."""
    return Priority.HIGH if alert.severity.rank >= Severity.HIGH.rank else Priority.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """Which alerts become tasks of the agent that carries this rule.

    `alerts = (AlertRule(kinds={"network"}, min_severity=Severity.MEDIUM, signature="beacon"),)`
    takes network alerts of medium and above whose signature contains "beacon".
    """

    kinds: AbstractSet[str] = frozenset({AlertKind.NETWORK})
    min_severity: Severity = Severity.INFO
    signature: str | None = None  # a regular expression, searched for without regard to case
    priority: Priority | Callable[[Alert], Priority] = urgent_first

    def __post_init__(self) -> None:
        """Refuse at import what could never match. Raises ConfigurationError."""
        unknown = set(self.kinds) - set(AlertKind)
        if unknown or not self.kinds:
            raise ConfigurationError(
                f"alert rule with kinds {sorted(self.kinds)}: use some of {', '.join(AlertKind)}"
            )
        try:
            re.compile(self.signature or "")
        except re.error as error:
            raise ConfigurationError(
                f"alert rule with signature {self.signature!r}: no regular expression, {error}"
            ) from error

    def matches(self, alert: Alert) -> bool:
        """True when this alert becomes a task."""
        return (
            alert.kind in self.kinds
            and alert.severity.rank >= self.min_severity.rank
            # Compiled once: re keeps the last few hundred patterns.
            and re.search(self.signature or "", alert.signature, re.IGNORECASE) is not None
        )

    def priority_of(self, alert: Alert) -> Priority:
        """The lane of the task that this alert becomes."""
        return self.priority if isinstance(self.priority, Priority) else self.priority(alert)
