"""Reads fields out of objects that others have made, and remembers which: the rest is evidence.

The formats beside this file use it. A field that cannot be what its name says is left where it is
rather than costing the alert.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from orchestrator.alert import Severity
from orchestrator.errors import Rejected

MILLISECONDS_FROM = 1e11  # as seconds this would be the year 5138: epoch milliseconds instead
LARGEST_PORT = 65_535
MOST_DIGITS = 19  # of 2**63

# Words that sensors and gateways use for severities, beside our own five.
SEVERITY_WORDS = {each.value: each for each in Severity} | {
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
    """A well-formed event of a kind that is no alert (flow, dns, stats ...): nothing to decide."""

    def __init__(self, event_type: str, said: str) -> None:
        self.event_type = event_type
        super().__init__(said)


class Foreign:
    """One object of an event, as somebody else wrote it."""

    def __init__(self, data: Any) -> None:
        """Store; what is no object is read as an empty one."""
        self.data: dict[str, Any] = data if isinstance(data, dict) else {}
        self.read: set[str] = set()

    def inside(self, *names: str) -> "Foreign":
        """The object at the end of these names; of an array, its first. Nothing is taken out."""
        found: Any = self.data
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
            if isinstance(found, list):
                found = found[0] if found else None
        return Foreign(found)

    def text(self, *names: str) -> str | None:
        """The first text under these names that is not empty."""
        for name in names:
            value = self.data.get(name)
            if isinstance(value, str) and value:
                self.read.add(name)
                return value
        return None

    def whole(self, name: str, largest: int) -> int | None:
        """The whole number under this name, 0 to `largest`; digits in quotes are one, too."""
        value = self.data.get(name)
        if isinstance(value, str) and value.isascii() and value.isdecimal():
            value = int(value[: MOST_DIGITS + 1])  # one more digit is over any limit
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest:
            self.read.add(name)
            return value
        return None

    def port(self, name: str) -> int | None:
        """The port under this name."""
        return self.whole(name, LARGEST_PORT)

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
            found = SEVERITY_WORDS.get(value.strip().lower())
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            found = _SEVERITY_NUMBERS.get(value, Severity.INFO)
        if found is None:
            return default
        self.read.add("severity")
        return found

    def connection(self) -> dict[str, Any]:
        """Who spoke with whom, and how, in the words of Suricata and ours."""
        texts = ("src_ip", "dest_ip", "proto", "app_proto", "direction")
        ports = ("src_port", "dest_port")
        return {name: self.text(name) for name in texts} | {name: self.port(name) for name in ports}

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
