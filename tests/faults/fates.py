"""What must become of each hostile entry, judged by the standard library and the record alone.

An entry is to be set aside, or to be taken, or may be either (`DOUBT`); it is never to vanish.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from orchestrator.errors import DeadReason
from orchestrator.task import TERMINAL, derived_id
from tests.faults.agents import Aim, Target, proof
from tests.faults.ground import Ground
from tests.faults.hostile import Doubled, Entry, read_object

LIMIT = 256 * 1024  # bytes of a message
LARGEST = 1024 * 1024  # characters of a dead letter's fields, as JSON
PLAIN = {"extra", "padding"}  # keys that nobody knows, with whatever beneath


class Fate(StrEnum):
    """What is to become of an entry."""

    TAKEN = "taken"
    SET_ASIDE = "set aside"
    DOUBT = "either"


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to become of an entry. Not the entry itself: 200,000 of them are 20 GB."""

    how: str
    kind: str  # of its stream: "task", "event", "act" or "alert"
    fate: Fate
    message_id: str
    speaks_of: str | None = None  # the task that an event names
    n: int | None = None  # what a task to be taken asks for


@dataclass
class Written:
    """Every hostile entry by stream and entry id. `kinds`: a stream's key -> what is on it."""

    kinds: Mapping[str, str]
    entries: dict[tuple[str, str], Expected] = field(default_factory=dict)
    ids: Counter[str] = field(default_factory=Counter)

    def add(self, stream: str, entry_id: str, entry: Entry) -> None:
        """One that Redis has taken."""
        found = expected(self.kinds[stream], stream, entry_id, entry)
        self.entries[stream, entry_id] = found
        self.ids[found.message_id] += 1


@dataclass(frozen=True)
class Record:
    """What Postgres says of them."""

    letters: Mapping[tuple[str, str], Any]
    seen: frozenset[str]  # entry ids that the audit names
    said: frozenset[str]  # those of them that it says were set aside
    tasks: Mapping[str, Any]
    audit: frozenset[str]
    alerts: frozenset[str]


async def read_record(ground: Ground) -> Record:
    """Everything, at the end."""
    letters = await ground.rows(
        "SELECT stream, entry_id, reason, detail, length(fields::text) AS size FROM dead_letters"
    )
    seen = await ground.rows(
        "SELECT DISTINCT coalesce(detail->>'entry_id', object_id) AS id FROM audit_events"
        " WHERE detail->>'entry_id' IS NOT NULL OR action = 'alert.ignored'"
    )
    said = await ground.rows(
        "SELECT coalesce(detail->>'entry_id', object_id) AS id FROM audit_events"
        " WHERE action IN ('message.dead_lettered', 'task.conflict')"
    )
    tasks = await ground.rows(
        "SELECT tasks.id::text AS id, tasks.state, entry_id, output, run_at > now() AS later"
        " FROM tasks LEFT JOIN results ON results.task_id = tasks.id"
    )
    return Record(
        letters={(row.stream, row.entry_id): row for row in letters},
        seen=frozenset(row.id for row in seen),
        said=frozenset(row.id for row in said),
        tasks={row.id: row for row in tasks},
        audit=frozenset(row.id for row in await ground.rows("SELECT id::text FROM audit_events")),
        alerts=frozenset(row.id for row in await ground.rows("SELECT id::text FROM alerts")),
    )


def message_id(stream: str, entry_id: str, entry: Entry) -> str:
    """The id that the wire gives this entry."""
    try:
        return str(UUID(dict(entry.fields).get(b"id", b"").decode()))
    except ValueError:
        return derived_id(stream, entry_id)


def expected(kind: str, stream: str, entry_id: str, entry: Entry) -> Expected:
    """Judged by the entry alone."""
    data = read_object(dict(entry.fields).get(b"data", b""))
    fate = fate_of(kind, entry, data)
    speaks_of, n = None, None
    if kind == "event":
        with contextlib.suppress(ValueError):
            speaks_of = str(UUID(str((data or {}).get("task_id"))))
    if kind == "task" and fate is Fate.TAKEN:
        assert data is not None
        n = data["input"]["n"]
    return Expected(entry.how, kind, fate, message_id(stream, entry_id, entry), speaks_of, n)


def fate_of(kind: str, entry: Entry, data: dict[str, Any] | None) -> Fate:
    """`data`: what the entry says, where it can be read."""
    fields = dict(entry.fields)
    size = sum(map(len, fields.values()))
    if data is None or (size > LIMIT and kind != "event"):
        return Fate.SET_ASIDE
    if not _is_plain(data):
        return Fate.DOUBT
    match kind:
        case "task":
            return _fate_of_task(data)
        case "event":
            missing = not {"task_id", "event", "agent"} <= set(data)
            return Fate.SET_ASIDE if missing else Fate.DOUBT
        case "act":
            whole = set(data) <= PLAIN | {"action", "actor", "object_type", "object_id", "at"}
            return Fate.TAKEN if whole else Fate.DOUBT
        case _:
            return Fate.DOUBT


def _fate_of_task(data: dict[str, Any]) -> Fate:
    if data.get("agent") != Target.name:
        return Fate.DOUBT if data.get("agent") == "guard" else Fate.SET_ASIDE
    if set(data) - PLAIN - {"agent", "input"} or not isinstance(data.get("input"), dict):
        return Fate.DOUBT
    given = data["input"]
    plain = type(given.get("n")) is int and isinstance(given.get("word", ""), str)
    return Fate.TAKEN if plain and set(given) <= set(Aim.model_fields) | PLAIN else Fate.DOUBT


def _is_plain(value: Any, depth: int = 0) -> bool:
    """True for JSON that every reader takes: nothing infinite, twice, deep, or half a character."""
    match value:
        case Doubled():
            return False
        case dict():
            inner = [*value, *value.values()]
        case list():
            inner = value
        case float():
            return math.isfinite(value)
        case str():
            return not any("\ud800" <= each <= "\udfff" for each in value)
        case _:
            return True
    return depth < 20 and all(_is_plain(each, depth + 1) for each in inner)


def judge(written: Written, found: Record) -> dict[str, list[str]]:
    """What is wrong."""
    wrong: dict[str, list[str]] = {"vanished": [], "set aside in error": [], "taken in error": []}
    for (stream, entry_id), entry in written.entries.items():
        letter = found.letters.get((stream, entry_id))
        said = f"{stream} {entry_id} {entry.how}"
        if letter is None and entry.fate is Fate.SET_ASIDE:
            wrong["taken in error"].append(said)
        alone = written.ids[entry.message_id] == 1
        if letter is not None and entry.fate is Fate.TAKEN and alone:
            wrong["set aside in error"].append(f"{said}: {letter.reason} {letter.detail[:100]}")
        if letter is None and not _is_there(entry_id, entry, found):
            wrong["vanished"].append(said)
    wrong["letters amiss"] = list(_amiss(written, found))
    wrong["strangers without an end"] = [
        f"{row.id} {row.state}" for row in found.tasks.values()
        if row.state not in TERMINAL and not row.later
    ]  # fmt: skip
    wrong["another's answer"] = list(_answers(written, found))
    return wrong


def _is_there(entry_id: str, entry: Expected, found: Record) -> bool:
    """The entry left its own trace, or is a duplicate of one that did."""
    match entry.kind:
        case "task":
            return entry_id in found.seen
        case "event":
            # An event of a task that has ended says nothing new; one of a stranger is its row.
            return entry.speaks_of in found.tasks
        case "act":
            return entry.message_id in found.audit
        case _:
            return entry.message_id in found.alerts or entry_id in found.seen


def _amiss(written: Written, found: Record) -> Iterator[str]:
    for key, letter in found.letters.items():
        if key not in written.entries:
            yield f"{key} was none of the hostile"
        elif letter.reason not in set(DeadReason) or not letter.detail:
            yield f"{key} has no reason"
        elif key[1] not in found.said:
            yield f"{key} is not in the audit"
        elif letter.size > LARGEST:
            yield f"{key} keeps {letter.size} characters"


def _answers(written: Written, found: Record) -> Iterator[str]:
    """Taken, and its task ended otherwise than its agent ends it."""
    for (stream, entry_id), entry in written.entries.items():
        if entry.n is None:
            continue
        row = found.tasks.get(entry.message_id)
        if written.ids[entry.message_id] == 1 and (
            row is None or row.output != {"n": entry.n, "proof": proof(entry.n)}
        ):  # fmt: skip
            yield f"{stream} {entry_id} {entry.how}: {row and row.state}"
