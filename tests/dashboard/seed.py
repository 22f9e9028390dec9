"""A morning in a security operations centre as rows: what browser tests and screenshots look at.

The same rows for the same `now`: alerts of the bundled sample, the reference agents' own verdicts,
a server that was away for five minutes, a sensor with a broken format.
"""

import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID, uuid5

from agents.enrich import Enrich
from agents.report import Report
from agents.triage import History, Triage, judge
from orchestrator.alert import Alert
from orchestrator.db.models import (
    AlertRow,
    AttemptRow,
    AuditRow,
    Base,
    DeadLetterRow,
    ResultRow,
    TaskRow,
)
from orchestrator.db.session import Database
from orchestrator.formats.normalise import normalise
from orchestrator.registry import AgentRegistry
from orchestrator.task import NAMESPACE, TaskState, progress
from tests.dashboard.calls import thinking
from tests.dashboard.timetable import schedules

REGISTRY = AgentRegistry([Triage, Enrich, Report])
WORKERS = ("worker:soc-1:412:9f3a", "worker:soc-2:88:c07d")
TIMED_OUT = {"type": "TimeoutError", "message": "attempt 3 took longer than 1 min"}
REFUSED = {
    "type": "ConnectionRefusedError",
    "message": "[Errno 111] Connect call failed ('10.10.0.31', 8443): reputation service",
}
DEVICES = (
    ("plc-3", "pressure", 9.1, 7.0, "critical", "bar"),
    ("line-3-oven", "temperature", 91.4, 85.0, "high", "°C"),
    ("door-7", "open_seconds", 640, 300, "medium", "s"),
    ("pump-12", "vibration", 4.9, 4.5, "low", "mm/s"),
)


class Morning:
    """Rows around one moment."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.chance = random.Random(7)
        self.rows: list[Base] = []
        self._count = 0

    def id(self, at: datetime) -> str:
        """A UUID of version 7, in the order of time."""
        self._count += 1
        tail = uuid5(NAMESPACE, f"seed {self._count}").hex
        head = f"{int(at.timestamp() * 1000):012x}7{tail[:3]}8{tail[3:18]}"
        return str(UUID(head))

    def ago(self, **span: float) -> datetime:
        return self.now - timedelta(**span)

    def task(
        self,
        agent: str,
        state: TaskState,
        at: datetime,
        task_input: dict[str, Any],
        *,
        took: float = 0.4,
        waited: float = 0.05,
        attempt: int = 1,
        output: Any = None,
        error: dict[str, Any] | None = None,
        **more: Any,
    ) -> TaskRow:
        """A task with its result, attempts and audit, as the recorder would have left them."""
        begun = state not in {TaskState.QUEUED, TaskState.SCHEDULED}
        worker = self.chance.choice(WORKERS) if begun else None
        first = at + timedelta(seconds=waited)
        started = first + timedelta(seconds=2.1 * (attempt - 1)) if begun else None
        ended = started + timedelta(seconds=took) if started and state.is_terminal else None
        row = TaskRow(
            id=self.id(at), agent=agent, state=state.value, progress=progress(state, attempt),
            created_at=at, published_at=at, started_at=started, finished_at=ended, worker=worker,
            attempt=attempt, input=task_input, stream="aurora:agent:tasks", entry_id="1-1",
            **{"queue": "default", "priority": "normal", **more},
        )  # fmt: skip
        self.rows.append(row)
        self._audit("task.queued", "alert-handler:soc-1:97", row.id, at)
        for number in range(1, attempt):
            self.rows.append(
                AttemptRow(
                    task_id=row.id, attempt=number, state="retrying", error=error or REFUSED,
                    worker=self.chance.choice(WORKERS),
                    started_at=first + timedelta(seconds=2.1 * (number - 1)),
                    finished_at=first + timedelta(seconds=2.1 * number - 1.3),
                )
            )  # fmt: skip
            gone = first + timedelta(seconds=2.1 * number - 1.3)
            self._audit("task.retrying", WORKERS[0], row.id, gone)
        if started is not None and state is not TaskState.RETRYING:
            self._audit("task.running", worker or "", row.id, started)
        if ended is not None:
            self._audit(f"task.{state.value}", worker or "", row.id, ended)
            self.rows.append(
                ResultRow(
                    task_id=row.id, agent=agent, state=state.value, attempt=attempt, output=output,
                    error=error, worker=worker, started_at=started, finished_at=ended,
                    recorded_at=ended + timedelta(milliseconds=30),
                )
            )  # fmt: skip
            if attempt > 1 or took > 1 or error:
                self.rows.append(
                    AttemptRow(
                        task_id=row.id, attempt=attempt, state=state.value, error=error,
                        worker=worker, started_at=started, finished_at=ended,
                    )
                )  # fmt: skip
        return row

    def alert(self, alert: Alert, at: datetime, *, task_ids: list[str], seen: bool) -> None:
        said = alert.model_dump(mode="python", exclude={"sensor"})
        self.rows.append(
            AlertRow(
                **said | {
                    "kind": alert.kind.value, "severity": alert.severity.value, "occurred_at": at,
                },
                received_at=at + timedelta(milliseconds=40),
                task_ids=task_ids,
                entry_id=f"{int(at.timestamp() * 1000)}-0",
                acknowledged_at=at + timedelta(minutes=3) if seen else None,
                acknowledged_by="key:ak_52c1a4f09d3be7aa" if seen else None,
            )
        )  # fmt: skip

    def letter(self, reason: str, detail: str, at: datetime, fields: dict[str, str]) -> None:
        self.rows.append(
            DeadLetterRow(
                id=self.id(at), stream="aurora:agent:tasks", task_id=self.id(at), reason=reason,
                entry_id=f"{int(at.timestamp() * 1000)}-{self._count}", agent="triage",
                detail=detail, fields=fields, created_at=at,
            )
        )  # fmt: skip

    def _audit(self, action: str, actor: str, object_id: str, at: datetime) -> None:
        self.rows.append(
            AuditRow(
                id=self.id(at), at=at, action=action, actor=actor, object_type="task",
                object_id=object_id, after={"state": action.partition(".")[2]},
            )
        )  # fmt: skip


def morning(now: datetime) -> list[Base]:
    """All rows, for `now`."""
    of = Morning(now)
    for index, (alert, at) in enumerate(_alerts(of)):
        _triaged(of, alert, at, index)
    _others(of)
    ended = [row.id for row in of.rows if isinstance(row, TaskRow) and row.finished_at]
    return [*of.rows, *schedules(now, ended), *thinking(of.rows, now)]


async def sow(database: Database, rows: list[Base]) -> None:
    """Put them there."""
    async with database.session() as session:
        session.add_all(rows)


def _alerts(of: Morning) -> Iterator[tuple[Alert, datetime]]:
    said = files("orchestrator.cli") / "samples" / "alerts.jsonl"
    events = [json.loads(line) for line in said.read_text().splitlines()]
    found = [(each, "network") for each in events[:230]]
    for index, (device, metric, value, limit, severity, unit) in enumerate(DEVICES * 3):
        found.insert(
            18 * index + 9,
            ({"device": device, "metric": metric, "value": value, "threshold": limit,
              "severity": severity, "unit": unit, "topic": f"plant/hall-2/{device}"}, "cps"),
        )  # fmt: skip
    # Denser towards the end, as mornings are.
    for index, (data, kind) in enumerate(found):
        at = of.ago(minutes=88 * (1 - index / len(found)) ** 1.4, seconds=4)
        yield normalise(data, id=of.id(at), kind=kind, received_at=at), at


def _triaged(of: Morning, alert: Alert, at: datetime, index: int) -> None:
    age = (of.now - at).total_seconds() / 60
    state, error, attempt, took = TaskState.SUCCEEDED, None, 1, of.chance.uniform(0.02, 0.6)
    if 31 < age < 36:  # the reputation service was away
        state, error, attempt = TaskState.FAILED, REFUSED, 3
    elif index % 61 == 17:
        state, error, attempt, took = TaskState.FAILED, TIMED_OUT, 3, 60.0
    elif index % 29 == 5:
        attempt = 2
    elif age < 0.6:
        state = TaskState.RUNNING if index % 2 else TaskState.QUEUED
    verdict = judge(alert, History(seen=index % 7, targets=index % 3))
    row = of.task(
        "triage", state, at, alert.model_dump(mode="json"), took=took, attempt=attempt,
        output=verdict.model_dump(mode="json") if state is TaskState.SUCCEEDED else None,
        error=error, waited=of.chance.uniform(0.01, 0.3),
        priority="high" if alert.severity.rank > 2 else "normal",
        meta={"alert_id": alert.id},
    )  # fmt: skip
    of.alert(alert, at, task_ids=[row.id], seen=age > 12 and index % 4 != 1)


def _others(of: Morning) -> None:
    nothing = {"indicators": [], "worth_asking": []}
    for index in range(46):
        text = f"hxxp://cdn{index}.example[.]net/a, 198.51.100.{index}, beacon{index}.example.org"
        of.task("enrich", TaskState.SUCCEEDED, of.ago(minutes=index * 1.9 + 0.2), {"text": text},
                took=of.chance.uniform(0.4, 3), output=nothing)  # fmt: skip
    at = of.ago(minutes=4, seconds=12)
    for index in range(9):
        text = f"http://203.0.113.{index}/payload.bin"
        of.task("enrich", TaskState.QUEUED, at + timedelta(seconds=20 * index), {"text": text},
                queue="enrichment")  # fmt: skip
    of.task("enrich", TaskState.RETRYING, of.ago(minutes=2), {"text": "mail.example.org"},
            attempt=2, run_at=of.now + timedelta(seconds=48), error=REFUSED)  # fmt: skip
    of.task("report", TaskState.RUNNING, of.ago(seconds=95), {"hours": 24})
    of.task("report", TaskState.SCHEDULED, of.ago(minutes=1), {"hours": 168},
            run_at=of.now + timedelta(minutes=42))  # fmt: skip
    cancelled = {"type": "Cancelled", "message": "cancelled by key:ak_52c1a4f09d3be7aa"}
    of.task("report", TaskState.CANCELLED, of.ago(minutes=50), {"hours": 168}, took=14,
            error=cancelled)  # fmt: skip
    of.task("enrich", TaskState.EXPIRED, of.ago(minutes=70), {"text": "late.example.net"},
            error={"type": "Expired", "message": "not begun in time"})  # fmt: skip
    broken = "field 'data' is not JSON: expected value at line 1 column 1"
    for index in range(3):
        at = of.ago(minutes=22 + index)
        of.letter("malformed", broken, at, {"data": "<134>Nov 23 sensor-04 ids: alert"})
    of.letter("unknown_agent", "no agent named 'summarise'; registered: enrich, report, triage",
              of.ago(minutes=41), {"data": '{"agent": "summarise", "input": {}}'})  # fmt: skip
