"""Tells the formats apart, makes alerts of them, and says which id an alert without one gets.

The alert handlers, the API and the command line call this, so that each door takes what the others
take.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid5

from pydantic import ValidationError

from orchestrator.alert import Alert, AlertKind
from orchestrator.errors import MalformedMessage
from orchestrator.formats.device import from_device, is_device
from orchestrator.formats.eve import from_eve, is_eve
from orchestrator.formats.ocsf import from_ocsf, is_ocsf
from orchestrator.formats.own import from_own, is_own
from orchestrator.formats.wazuh import from_wazuh, is_wazuh
from orchestrator.task import NAMESPACE, canonical_id


class Format(NamedTuple):
    """One way of writing alerts down."""

    name: str
    needs: str  # what makes an object one of these
    fits: Callable[[dict[str, Any]], bool]
    read: Callable[[dict[str, Any], datetime], dict[str, Any]]


# The first that fits reads it.
FORMATS = (
    Format("our own schema", "'signature' and 'severity' at least", is_own, from_own),
    Format("an OCSF finding", "'class_uid' 2004 or 2001", is_ocsf, from_ocsf),
    Format("a Wazuh alert", "'rule' with 'level'", is_wazuh, from_wazuh),
    Format("a device's alert", "'device' and 'metric' or 'message'", is_device, from_device),
    Format("a Suricata EVE event", "'event_type' 'alert' and an object 'alert'", is_eve, from_eve),
)


class InvalidAlert(MalformedMessage):
    """An alert by its form, with fields that hold what they cannot."""

    def __init__(self, problems: tuple[tuple[str, str], ...]) -> None:
        self.problems = problems  # (field, what would be right) each
        listed = "; ".join(f"{name or 'data'}: {said}" for name, said in problems)
        super().__init__(
            f"not a valid alert: {listed}; `aurora alerts schema` prints what each field holds"
        )


def normalise(data: dict[str, Any], *, id: str, kind: str, received_at: datetime) -> Alert:  # noqa: A002 - the wire's word
    """Make an alert of what a stream's `data` brought, in any of FORMATS.

    `id` and `kind` are the envelope's and win over any in `data`, so a message published twice is
    one alert. A field that cannot be what its name says stays in `details` rather than costing the
    alert; so does an unreadable timestamp, in whose place `received_at` (aware) stands.

    Raises NotAnAlert for events of other kinds, MalformedMessage for anything else.
    """
    found = next((each for each in FORMATS if each.fits(data)), None)
    if found is None:
        listed = "; ".join(f"{each.name} ({each.needs})" for each in FORMATS)
        raise MalformedMessage(f"not an alert; send one of: {listed}")
    fields = found.read(data, received_at)
    try:
        return Alert.model_validate(fields | {"id": id, "kind": kind})
    except ValidationError as error:
        raise InvalidAlert(
            tuple(
                ("/".join(map(str, each["loc"])), each["msg"])
                for each in error.errors(include_url=False, include_input=False)
            )
        ) from error


def own_kind(data: dict[str, Any]) -> AlertKind | None:
    """The kind that an alert brings, where it is one."""
    return next((each for each in AlertKind if each == data.get("kind")), None)


def own_id(data: dict[str, Any]) -> str | None:
    """The id that an alert brings, in its one spelling; None where it is no UUID."""
    try:
        return canonical_id(data["id"])
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def content_id(data: dict[str, Any]) -> str:
    """The id that an alert brings, or else one made of all that it says.

    Neither the order of keys nor white space matters; two events that say the same to the last
    field are one alert.
    """
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return own_id(data) or str(uuid5(NAMESPACE, f"alert\x1f{canonical}"))
