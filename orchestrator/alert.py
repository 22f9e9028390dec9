"""What an alert is: values only; `formats` makes alerts of what sensors send, rules take them.

Alerts are written by attackers as much as by sensors: text is bounded here and never trusted, and
whoever shows it escapes it.
"""

import math
import re
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
)

# Characters; longer text is cut and ends with an ellipsis. A Suricata signature is at most a few
# hundred, an event's printable payload a few thousand.
LONGEST_NAME = 200
LONGEST_SIGNATURE = 1_000
LONGEST_DETAIL = 32_768
# Suricata nests about seven deep (dns.answers[].soa); more is someone trying our stack.
DEEPEST_DETAIL = 16
LARGEST_INT = 2**63 - 1  # Postgres' bigint
_SURROGATES = re.compile("[\ud800-\udfff]")


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
SignatureId = Annotated[int, Field(ge=0, le=LARGEST_INT)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Details = Annotated[dict[str, Any], BeforeValidator(_clean_detail)]


class Alert(BaseModel):
    """One alert in one shape, whichever sensor saw it. What it says is evidence, not truth.

    Addresses are text: a sensor's odd spelling is data, and `ipaddress` judges it where needed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    # The descriptions are docs/alerts.md's and the JSON Schema's, too.
    id: Annotated[str, Field(description="a UUID; the message's")]
    kind: Annotated[AlertKind, Field(description="which stream it came on")] = AlertKind.NETWORK
    source: Annotated[Name, Field(description="the product that raised it")] = "unknown"
    occurred_at: Annotated[AwareDatetime, Field(description="when it happened, with an offset")]
    severity: Annotated[Severity, Field(description="how serious, in one of these words")]
    signature: Annotated[Signature, Field(description="what was seen, in the rule's words")]
    signature_id: Annotated[SignatureId | None, Field(description="the rule's number")] = None
    category: Annotated[Name, Field(description="the kind of attack, as the source says it")] = ""
    action: Annotated[Name | None, Field(description='"allowed", "blocked" ...')] = None
    src_ip: Annotated[Name | None, Field(description="who began, as text")] = None
    src_port: Annotated[Port | None, Field(description="0 to 65535")] = None
    dest_ip: Annotated[Name | None, Field(description="with whom, as text")] = None
    dest_port: Annotated[Port | None, Field(description="0 to 65535")] = None
    proto: Annotated[Name | None, Field(description='"TCP", "UDP" ...')] = None
    app_proto: Annotated[Name | None, Field(description='"http", "tls" ...')] = None
    direction: Annotated[Name | None, Field(description='such as "to_server"')] = None
    sensor: Annotated[Name | None, Field(description="who saw it")] = None
    host: Annotated[Name | None, Field(description="the machine or device it is about")] = None
    details: Annotated[Details, Field(description="whatever else there is to say")] = Field(
        default_factory=dict
    )

    @field_validator("id")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return str(UUID(value))
