"""/api/v1/alerts: accept one or many onto their streams, search, read, acknowledge."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, Query
from pydantic_core import to_json

from orchestrator.alert import LARGEST_INT, AlertKind, Severity
from orchestrator.api import paging
from orchestrator.api.auth import Actor, needs
from orchestrator.api.paging import Cursor, Limit, Listed, Moment, Text
from orchestrator.api.parts import Parts
from orchestrator.api.problems import Problem, wrong
from orchestrator.api.requests import BulkRoute, guarded
from orchestrator.api.schemas import AlertOut, AlertsAccepted, AlertSummary
from orchestrator.db import listing
from orchestrator.db.acknowledging import AlertNotFound, acknowledge, unacknowledge
from orchestrator.db.keys import Scope
from orchestrator.errors import PayloadTooLarge, Rejected
from orchestrator.formats.normalise import content_id, normalise, own_id, own_kind
from orchestrator.formats.own import EXAMPLES, json_schema
from orchestrator.runtime.room import admit_alerts
from orchestrator.streams.names import ALERTS, CPS_ALERTS, Stream
from orchestrator.task import new_id

PATH = "/api/v1/alerts"
MOST_AT_ONCE = 1000  # alerts in one request: one write to Redis each
ENVELOPE = 512  # bytes that an entry's other fields need within the limit of a message


class Ids(StrEnum):
    """Which ids alerts get that bring none."""

    NEW = "new"
    CONTENT = "content"  # of all that the alert says: sent twice, it is one


router = guarded(PATH, "alerts")
bulk = guarded(PATH, "alerts", route_class=BulkRoute)

_EXAMPLES: list[Any] = [
    EXAMPLES[1],
    [{"device": "pump-3", "metric": "pressure", "value": 9.1, "threshold": 7, "severity": "high"}],
]


@bulk.post(
    "", status_code=202, operation_id="submitAlerts", dependencies=[needs(Scope.ALERTS_WRITE)]
)
async def submit_alerts(
    body: Annotated[dict[str, Any] | list[dict[str, Any]], Body(examples=_EXAMPLES)],
    parts: Parts,
    actor: Actor,
    kind: Annotated[AlertKind, Query(description="of alerts that do not say")] = AlertKind.NETWORK,
    ids: Annotated[Ids, Query(description="of alerts that bring none")] = Ids.NEW,
) -> AlertsAccepted:
    """Accept one alert, or an array of them all or none, each in any of the formats.

    These are our own schema, OCSF findings, Wazuh's and Suricata's alerts, and a device's. An alert
    that brings its own `id` (a UUID) may be sent again without becoming two; with `ids=content` so
    may any other that says the same to the last field. With Redis down the answer is 503.
    """
    given = body if isinstance(body, list) else [body]
    if not 1 <= len(given) <= MOST_AT_ONCE:
        raise Problem(
            422, "invalid_request", f"send 1 to {MOST_AT_ONCE} alerts; these are {len(given)}"
        )
    many = isinstance(body, list)
    limit = parts.settings.max_payload - ENVELOPE
    ready = _ready(given, kind=kind, ids=ids, limit=limit, many=many)
    await admit_alerts(parts.streams)
    found = [alert_id for _, alert_id, _ in ready]
    await parts.publisher.audit(
        "alerts.submitted",
        object_type="alert",
        object_id=found[0],
        actor=actor,
        detail={"count": len(found), "alert_ids": found},
    )
    await parts.publisher.publish_alerts(ready)
    return AlertsAccepted(ids=found)


@router.get("", operation_id="listAlerts", dependencies=[needs(Scope.ALERTS_READ)])
async def list_alerts(
    parts: Parts,
    *,
    kind: AlertKind | None = None,
    severity: Severity | None = None,
    min_severity: Annotated[Severity | None, Query(description="this one or a higher one")] = None,
    source: Text | None = None,
    address: Annotated[Text | None, Query(description="either end of the connection")] = None,
    src_ip: Text | None = None,
    dest_ip: Text | None = None,
    signature: Annotated[Text | None, Query(description="contained; case does not matter")] = None,
    signature_id: Annotated[int | None, Query(ge=0, le=LARGEST_INT)] = None,
    acknowledged: bool | None = None,
    investigation_id: UUID | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Listed[AlertSummary]:
    """Alerts by arrival, the newest first; `since` is included, `until` is not.

    A page looks at a hundred thousand alerts at most. Where few of them match it is short, or
    empty, and `next_cursor` goes on from there; only null is the end.
    """
    filters: dict[str, Any] = {
        "kind": kind and kind.value, "severity": severity and severity.value,
        "min_severity": min_severity and min_severity.value, "source": source, "address": address,
        "src_ip": src_ip, "dest_ip": dest_ip, "signature": signature, "signature_id": signature_id,
        "acknowledged": acknowledged,
        "investigation_id": investigation_id and str(investigation_id),
        "since": since, "until": until,
    }  # fmt: skip
    after = paging.after(cursor, filters)
    page = await listing.alerts(parts.database, **filters, after=after, limit=limit)
    return paging.listed(page, AlertSummary.model_validate, filters)


@router.get("/schema", operation_id="readAlertSchema", dependencies=[needs(Scope.ALERTS_WRITE)])
async def read_schema() -> dict[str, Any]:
    """The JSON Schema of an alert in our own words: what a normaliser in any language writes."""
    return json_schema()


@router.get("/{alert_id}", operation_id="readAlert", dependencies=[needs(Scope.ALERTS_READ)])
async def read_alert(alert_id: UUID, parts: Parts) -> AlertOut:
    """One alert with everything that its sensor said."""
    found = await listing.alert(parts.database, str(alert_id))
    if found is None:
        raise AlertNotFound([str(alert_id)])
    return AlertOut.model_validate(found)


@router.post(
    "/{alert_id}/acknowledge",
    operation_id="acknowledgeAlert",
    dependencies=[needs(Scope.ALERTS_ACKNOWLEDGE)],
)
async def acknowledge_alert(alert_id: UUID, parts: Parts, actor: Actor) -> AlertOut:
    """Note that the caller sees to this alert. Who was first stays, however often it is said."""
    (row,) = await acknowledge(parts.database, [str(alert_id)], actor=actor)
    return AlertOut.model_validate(row)


@router.post(
    "/{alert_id}/unacknowledge",
    operation_id="unacknowledgeAlert",
    dependencies=[needs(Scope.ALERTS_ACKNOWLEDGE)],
)
async def unacknowledge_alert(alert_id: UUID, parts: Parts, actor: Actor) -> AlertOut:
    """Take an acknowledgement back, whoever gave it."""
    (row,) = await unacknowledge(parts.database, [str(alert_id)], actor=actor)
    return AlertOut.model_validate(row)


def _ready(
    given: list[dict[str, Any]], *, kind: AlertKind, ids: Ids, limit: int, many: bool
) -> list[tuple[Stream, str, bytes]]:
    """(stream, message id, data) of each. Raises Problem that names every alert that is none.

    What is published is what was sent: the handler normalises it by the same rule, and evidence
    stays as it was.
    """
    found, errors = [], []
    for index, alert in enumerate(given):
        at = f"/{index}" if many else ""
        alert_id = content_id(alert) if ids is Ids.CONTENT else own_id(alert) or new_id()
        data = to_json(alert)
        its_kind = own_kind(alert) or kind
        try:
            if len(data) > limit:
                raise PayloadTooLarge(len(data), limit)
            normalise(alert, id=alert_id, kind=its_kind, received_at=datetime.now(UTC))
        except Rejected as error:
            errors.append(wrong(at, str(error)))
        stream = CPS_ALERTS if its_kind is AlertKind.CPS else ALERTS
        found.append((stream, alert_id, data))
    if errors:
        said = f"{len(errors)} of {len(given)} are no alerts: {errors[0]['message']}"
        raise Problem(422, "invalid_alert", said, errors=errors)
    return found
