"""Alerts by their place on the stream, for a live feed whose client comes back after a trim."""

from typing import Any

from sqlalchemy import text

from orchestrator.alert import Alert
from orchestrator.db.models import AlertRow
from orchestrator.db.session import Database

_COLUMNS = ", ".join(
    f'"{name}"' for name in Alert.model_fields if name in AlertRow.__table__.columns
)
# Written as the index `ix_alerts_entry` has them.
_MS, _SEQUENCE = (f"(split_part(entry_id, '-', {part})::bigint)" for part in (1, 2))
_BETWEEN = text(
    f"SELECT entry_id, {_COLUMNS} FROM alerts"  # noqa: S608 - names of ours
    f" WHERE kind = :kind AND entry_id IS NOT NULL AND {_MS} BETWEEN :after_ms AND :until_ms"
    f" AND ({_MS}, {_SEQUENCE}) > (:after_ms, :after_sequence)"
    f" AND ({_MS}, {_SEQUENCE}) <= (:until_ms, :until_sequence)"
    f" ORDER BY {_MS}, {_SEQUENCE} LIMIT :limit"
)
_LARGEST = 2**63 - 1  # bigint; Redis' own ids go twice as far, and no clock does

EntryNumbers = tuple[int, int]  # an entry id: its millisecond and its sequence


async def alerts_between(
    database: Database, kind: str, *, after: EntryNumbers, until: EntryNumbers, limit: int
) -> list[tuple[str, Alert]]:
    """(entry id, alert) after `after` up to `until`, in the stream's order. Raises Unavailable."""
    params = {
        f"{name}_{part}": min(value, _LARGEST)
        for name, numbers in (("after", after), ("until", until))
        for part, value in zip(("ms", "sequence"), numbers, strict=True)
    }
    async with database.transaction() as connection:
        found = await connection.execute(_BETWEEN, {"kind": kind, "limit": limit, **params})
        return [(row["entry_id"], _alert(dict(row))) for row in found.mappings()]


def _alert(row: dict[str, Any]) -> Alert:
    details = dict(row["details"] or {})
    sensor = None
    # Where the alert itself has one, it stands there as text.
    if isinstance(details.get("sensor"), str):
        sensor = details.pop("sensor")
    return Alert.model_validate({**row, "id": str(row["id"]), "details": details, "sensor": sensor})
