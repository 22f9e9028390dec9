"""Writes what calls of models cost, and reckons from it what tasks and attempts have spent.

`model_calls` is the ledger: `results.usage`, `attempts.usage` and `usage_totals` are its sums, made
in the transaction that writes a call or an end. The caller (db.recording) holds the tasks' locks:
of two recorders with a call and an end of one task, the second one sees what the first one wrote.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.db.bulk import Insert, parameters, texts
from orchestrator.record import ModelCallRecord
from orchestrator.task import TaskId

_FIGURES = ("input_tokens", "output_tokens", "cached_tokens", "tool_calls")
_SAME = " AND ".join(
    f"model_calls.{name} IS NOT DISTINCT FROM excluded.{name}"
    for name in ("task_id", "attempt", "model", *_FIGURES, "cost_usd")
)
INSERT_CALLS = Insert(
    "model_calls",
    {
        "id": "uuid", "task_id": "uuid", "agent": "text", "attempt": "int", "model": "text",
        "at": "timestamptz", "seconds": "double precision", "input_tokens": "bigint",
        "output_tokens": "bigint", "cached_tokens": "bigint", "tool_calls": "bigint",
        "cost_usd": "numeric", "worker": "text",
    },
    # A call that was read again is no news. Another call under an id that is taken would be lost:
    # this is no UUID, so Postgres refuses it with these words, and it is set aside.
    "ON CONFLICT (id) DO UPDATE"
    " SET id = (excluded.id::text || ' is the id of another call already')::uuid"
    f" WHERE NOT ({_SAME}) RETURNING agent, model, {', '.join(_FIGURES)}, cost_usd",
)  # fmt: skip
# What is new in the ledger goes into the totals. In one order for all, so that none deadlock.
_WRITE_CALLS = text(
    f"WITH fresh AS ({INSERT_CALLS.sql()})"  # noqa: S608 - our own names
    " INSERT INTO usage_totals AS t"
    f" (agent, model, requests, {', '.join(_FIGURES)}, cost_usd, unpriced_requests)"
    f" SELECT agent, model, count(*), {', '.join(f'sum({name})' for name in _FIGURES)},"
    " sum(cost_usd), count(*) FILTER (WHERE cost_usd IS NULL)"
    " FROM fresh GROUP BY agent, model ORDER BY agent, model"
    " ON CONFLICT (agent, model) DO UPDATE SET requests = t.requests + excluded.requests, "
    + ", ".join(f"{name} = t.{name} + excluded.{name}" for name in _FIGURES)
    + ", cost_usd = coalesce(t.cost_usd + excluded.cost_usd, t.cost_usd, excluded.cost_usd),"
    " unpriced_requests = t.unpriced_requests + excluded.unpriced_requests"
)

OF_THESE = "task_id = ANY(string_to_array(CAST(:spenders AS text), ',')::uuid[])"
# Whether any of these tasks has called a model.
HAVE_SPENT = f"EXISTS (SELECT FROM model_calls WHERE {OF_THESE})"


def _usage(requests: str, unpriced: str) -> str:
    """As `Usage.as_json`: the cost is a decimal in text."""
    sums = ", ".join(f"'{name}', sum({name})" for name in _FIGURES)
    return (
        f"jsonb_build_object('requests', {requests}, {sums}, 'cost_usd', sum(cost_usd)::text,"
        f" 'unpriced_requests', {unpriced})"
    )


# An attempt that called a model has a line, and with the task's end each of them an end: that of
# the task is the result's, an earlier one fell silent, a later one came too late.
_RECKON = text(
    "WITH spent AS (SELECT task_id, attempt, max(worker) AS worker, count(*) AS requests,"  # noqa: S608
    f" count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced, sum(cost_usd) AS cost_usd,"
    f" {', '.join(f'sum({name}) AS {name}' for name in _FIGURES)},"
    f" {_usage('count(*)', 'count(*) FILTER (WHERE cost_usd IS NULL)')} AS usage"
    f" FROM model_calls WHERE {OF_THESE} GROUP BY task_id, attempt),"
    " lines AS (INSERT INTO attempts AS a"
    " (task_id, attempt, state, error, usage, worker, started_at, finished_at)"
    " SELECT s.task_id, s.attempt,"
    " CASE WHEN r.task_id IS NULL THEN 'running' WHEN r.attempt = s.attempt THEN r.state"
    " WHEN r.attempt > s.attempt THEN 'crashed' ELSE 'superseded' END,"
    " e.error, s.usage, coalesce(e.worker, s.worker), e.started_at, e.finished_at"
    " FROM spent AS s LEFT JOIN results AS r USING (task_id)"
    " LEFT JOIN results AS e ON e.task_id = s.task_id AND e.attempt = s.attempt"
    " ON CONFLICT (task_id, attempt) DO UPDATE SET usage = excluded.usage,"
    " state = CASE WHEN a.state = 'running' THEN excluded.state ELSE a.state END,"
    " error = coalesce(a.error, excluded.error), worker = coalesce(a.worker, excluded.worker),"
    " started_at = coalesce(a.started_at, excluded.started_at),"
    " finished_at = coalesce(a.finished_at, excluded.finished_at))"
    " UPDATE results SET usage = whole.usage FROM"
    f" (SELECT task_id, {_usage('sum(requests)', 'sum(unpriced)')} AS usage"
    " FROM spent GROUP BY task_id) AS whole WHERE results.task_id = whole.task_id"
)


async def write_calls(connection: AsyncConnection, calls: Sequence[ModelCallRecord]) -> None:
    """Write them, each once, into the ledger and the totals."""
    ordered = sorted(calls, key=lambda call: call.id)
    await connection.execute(_WRITE_CALLS, parameters(texts(ordered, INSERT_CALLS.columns)))


async def reckon(connection: AsyncConnection, tasks: Collection[TaskId]) -> None:
    """Sum up what these tasks and their attempts have spent, as the ledger stands now."""
    await connection.execute(_RECKON, {"spenders": ",".join(sorted(tasks))})
