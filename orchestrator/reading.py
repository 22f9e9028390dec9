"""What one MQTT message is by one mapping: an alert, a reading within bounds, or no reading at all.

Pure; the bridge calls `matching` and `judge`. Whoever may publish writes topics and payloads:
nothing of them is ever a format string, a pattern or a path of ours.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid5

from pydantic_core import from_json

from orchestrator.alert import Severity
from orchestrator.mapping import CONTROL, PLACE, PayloadForm, Step, TopicMapping, When
from orchestrator.task import NAMESPACE, new_id

Value = bool | int | float | str

LONGEST_TOPIC = 1_000  # characters; MQTT allows 65,535 bytes, plants use a few dozen
LONGEST_NUMBER = 64  # characters of a number sent as text
LONGEST_SHOWN = 200  # characters of a value or a topic's level within a text of ours
# Seconds in which one packet number, topic and payload are one reading: longer than a bridge takes
# to come back, shorter than 65,535 packet numbers take to come round (at 200 messages a second).
WINDOW = 300
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One message as the broker delivered it."""

    topic: str
    payload: bytes
    received_at: datetime  # aware
    retained: bool = False
    qos: int = 1
    packet: int = 0  # MQTT's number of it within the session; used again after 65,535


@dataclass(frozen=True, slots=True)
class Reported:
    """An alert, in the form of a device's."""

    data: dict[str, Any]
    value: Value
    timed: bool  # the payload itself says when


@dataclass(frozen=True, slots=True)
class Unremarkable:
    """A reading that is no alert."""

    value: Value | None = None  # None: not looked at


@dataclass(frozen=True, slots=True)
class BadReading:
    """No reading of this mapping's form."""

    reason: str


Verdict = Reported | Unremarkable | BadReading


def matching(mapping: TopicMapping, topic: str) -> dict[str, str] | None:
    """The names of the topic's levels with what stands there; None where it does not match."""
    named: dict[str, str] = {}
    levels = topic.split("/")
    for number, wanted in enumerate(mapping.levels):
        if wanted == "#":
            return named
        if number >= len(levels):
            return None
        if found := PLACE.fullmatch(wanted):
            named[found[1]] = levels[number]
        elif wanted not in {"+", levels[number]}:
            return None
    return named if len(levels) == len(mapping.levels) else None


def bad_topic(topic: str) -> str | None:
    """Why nobody should be told of this topic as it is; None where it is a decent one."""
    if len(topic) > LONGEST_TOPIC:
        return f"a topic of {len(topic)} characters; at most {LONGEST_TOPIC}"
    if CONTROL.search(topic) or "+" in topic or "#" in topic:
        return "a topic with control characters or wildcards in it"
    return None


def judge(mapping: TopicMapping, heard: Heard, previous: Value | None = None) -> Verdict:
    """What one message is by one mapping that matches it; never raises.

    `previous`: the value that this topic had before, as far as anybody remembers.
    """
    named = matching(mapping, heard.topic)
    if named is None or (heard.retained and mapping.retained == "ignore"):
        return Unremarkable()
    try:
        document = _document(mapping.payload, heard.payload)
        value = _value(mapping, document)
    except _Bad as bad:
        return BadReading(str(bad))
    passed = _passed(mapping, value, previous)
    if passed is None:
        return Unremarkable(value)
    severity, threshold = passed
    words = named | {"topic": heard.topic, "metric": mapping.metric}
    device = _filled(mapping.device, words)
    words |= {"device": device, "value": _said(value)} | {
        each: _said(found)
        for each in ("low", "high", "target")
        if (found := getattr(mapping, each)) is not None
    }
    if threshold is not None:
        words["threshold"] = _said(threshold)
    moment = _moment(mapping, document)
    data = {
        "source": "mqtt",
        "device": device,
        "metric": mapping.metric,
        "value": value,
        "threshold": threshold if threshold is not None else _limits(mapping),
        "severity": severity.value,
        "message": _filled(mapping.message or _MESSAGES[mapping.when], words),
        "topic": heard.topic,
        "mapping": mapping.name,
    }
    data |= {"occurred_at": moment} if moment is not None else {}
    data |= {"retained": True} if heard.retained else {}
    return Reported(data, value, timed=moment is not None)


def alert_id(mapping: TopicMapping, heard: Heard, *, client_id: str, timed: bool) -> str:
    """The same for a redelivery, another for a later reading that happens to be equal.

    A payload that says when is itself for ever, and so is a retained value. Of others, the packet's
    number within a window of time tells; QoS 0 is never delivered again.
    """
    digest = hashlib.sha256(heard.payload).hexdigest()
    parts = ["mqtt", mapping.name, heard.topic, digest]
    if not timed and not heard.retained:
        if heard.qos == 0:
            return new_id()
        window = int(heard.received_at.timestamp() // WINDOW)
        parts += [client_id, str(heard.packet), str(window)]
    return str(uuid5(NAMESPACE, "\x1f".join(parts)))


# What an alert says unless its mapping has words of its own. Without the reading, so that
# repetitions are seen as such.
_MESSAGES = {
    When.ABOVE: "{metric} above {threshold}",
    When.BELOW: "{metric} below {threshold}",
    When.OUTSIDE: "{metric} outside {low} to {high}",
    When.EQUALS: "{metric} is {target}",
    When.CHANGED_TO: "{metric} changed to {target}",
}


class _Bad(Exception):
    """The reason of a BadReading."""


def _document(form: PayloadForm, payload: bytes) -> Any:
    try:
        if form is PayloadForm.JSON:
            # NaN and Infinity are no JSON.
            return from_json(payload, allow_inf_nan=False)
        return payload.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise _Bad(f"not UTF-8 at byte {error.start}") from error
    except ValueError as error:
        raise _Bad(f"not JSON: {error}") from error


def _value(mapping: TopicMapping, document: Any) -> Value:
    found = _at(document, mapping.value)
    if isinstance(found, bool):
        if mapping.when in {When.EQUALS, When.CHANGED_TO}:
            return found
        raise _Bad("true or false where a number is wanted")
    target = mapping.target
    wants_number = mapping.payload is PayloadForm.NUMBER or not isinstance(
        target, bool | str | None
    )
    if mapping.when not in {When.EQUALS, When.CHANGED_TO} or wants_number:
        return _number(found)
    if isinstance(found, str):
        return found
    raise _Bad(f"{_kind(found)} where text, true or false is wanted")


def _number(found: Any) -> int | float:
    if isinstance(found, str):
        # Gateways like to quote numbers; there is one thing they can mean.
        if len(found) > LONGEST_NUMBER or not _NUMBER.fullmatch(found.strip()):
            raise _Bad("text that is no number")
        found = float(found)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise _Bad(f"{_kind(found)} where a number is wanted")
    try:
        if not math.isfinite(float(found)):
            raise OverflowError  # noqa: TRY301 - the same to a reader as what float() raises
    except OverflowError as error:
        raise _Bad("a number beyond 1.8e308") from error
    return float(found) if abs(found) >= 2**53 else found


def _at(document: Any, pointer: str) -> Any:
    """RFC 6901."""
    found = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isascii() and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise _Bad(f"nothing at {pointer}")
    return found


def _moment(mapping: TopicMapping, document: Any) -> str | int | float | None:
    if mapping.occurred_at is None:
        return None
    try:
        found = _at(document, mapping.occurred_at)
        return found[:LONGEST_SHOWN] or None if isinstance(found, str) else _number(found)
    except _Bad:
        return None


def _passed(
    mapping: TopicMapping, value: Value, previous: Value | None
) -> tuple[Severity, float | None] | None:
    """The severity with the threshold that was passed; None for a reading within bounds."""
    match mapping.when:
        case When.EQUALS | When.CHANGED_TO:
            same = value == mapping.target and isinstance(value, bool) == isinstance(
                mapping.target, bool
            )
            repeated = mapping.when is When.CHANGED_TO and previous == value
            return (mapping.severity, None) if same and not repeated else None
        case When.OUTSIDE:
            within = _float(mapping.low) <= _float(value) <= _float(mapping.high)
            return None if within else (mapping.severity, None)
    sign = -1 if mapping.when is When.BELOW else 1
    passed = None
    base = Step(threshold=_float(mapping.threshold), severity=mapping.severity)
    for step in (base, *mapping.steps):
        if sign * _float(value) > sign * step.threshold:
            passed = (step.severity, step.threshold)
    return passed


def _float(value: Value | None) -> float:
    # Checked before: `_value` and the model's validators.
    return float(value) if value is not None else math.nan


def _limits(mapping: TopicMapping) -> Any:
    return (
        mapping.target if mapping.target is not None else {"low": mapping.low, "high": mapping.high}
    )


def _filled(template: str, words: Mapping[str, str]) -> str:
    """Each `{name}` replaced, once: what is put in is never looked at again."""
    return PLACE.sub(lambda found: words.get(found[1], found[0])[:LONGEST_SHOWN], template)


def _said(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kind(found: Any) -> str:
    kinds = {
        dict: "an object",
        list: "an array",
        str: "text",
        type(None): "null",
        bool: "a boolean",
    }
    return kinds.get(type(found), "a number")
