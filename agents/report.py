"""Sums up a day: what the agents did, what the sensors saw, what needs somebody's attention.

Reads the record (SQL, read only) and adds a few sentences; the figures are all in the result, so
that a dashboard or a mail can show them its own way.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from orchestrator import Agent, RunContext, crontab

DAY_HOURS = 24
WEEK_HOURS = 168
# From these on the report speaks of it.
NOTABLE_FAILURE_SHARE = 0.05
NOTABLE_CHANGE = 1.5  # times the alerts of the period before, or that many times fewer
FEW_ALERTS = 20  # below that a change is chance


class ReportInput(BaseModel):
    """Which hours to sum up; without anything, the 24 hours up to the tick."""

    model_config = ConfigDict(frozen=True)

    until: AwareDatetime | None = None  # default: when the task was due, else now
    hours: int = Field(default=DAY_HOURS, ge=1, le=WEEK_HOURS)
    top: int = Field(default=10, ge=1, le=100)  # length of each list


class AgentFigures(BaseModel):
    """What one agent did with the tasks that were created in the period."""

    agent: str
    tasks: int
    succeeded: int
    unsuccessful: int  # failed, expired or dead
    cancelled: int
    unfinished: int
    repeated: int  # needed more than one attempt
    median_seconds: float | None  # of those that finished, start to end
    longest_seconds: float | None


class Counted(BaseModel):
    """A line of a list: what, how often."""

    label: str
    count: int


class Serious(BaseModel):
    """One of the worst verdicts of the period, and how many said the same."""

    task_id: str
    alert_id: str
    score: float
    classification: str
    action: str
    reason: str  # the first one
    alike: int  # this one included


class DailyReport(BaseModel):
    """A period in figures, with the sentences that an analyst reads first."""

    since: AwareDatetime
    until: AwareDatetime
    headlines: list[str]
    agents: list[AgentFigures]
    alerts: int
    alerts_before: int  # in the period of the same length before
    alerts_by_severity: list[Counted]
    top_signatures: list[Counted]
    top_sources: list[Counted]
    verdicts_by_severity: list[Counted]
    recommended_actions: list[Counted]
    most_serious: list[Serious]
    failures: list[Counted]  # what unsuccessful tasks failed of
    dead_letters: list[Counted]


# Half-open periods, so that an event on the stroke of six belongs to one report only.
AGENTS = """
    SELECT agent,
           count(*) AS tasks,
           count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE state IN ('failed', 'expired', 'dead')) AS unsuccessful,
           count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE finished_at IS NULL) AS unfinished,
           count(*) FILTER (WHERE attempt > 1) AS repeated,
           percentile_cont(0.5) WITHIN GROUP (
               ORDER BY CAST(extract(epoch FROM finished_at - started_at) AS float8)
           ) AS median_seconds,
           CAST(max(extract(epoch FROM finished_at - started_at)) AS float8) AS longest_seconds
    FROM tasks
    WHERE created_at >= :since AND created_at < :until
    GROUP BY agent
    ORDER BY tasks DESC, agent
"""
ALERTS_BY_SEVERITY = """
    SELECT severity AS label, count(*) AS count
    FROM alerts
    WHERE received_at >= :since AND received_at < :until
    GROUP BY severity
    ORDER BY count DESC, label
"""
TOP_SIGNATURES = """
    SELECT signature AS label, count(*) AS count
    FROM alerts
    WHERE received_at >= :since AND received_at < :until
    GROUP BY signature
    ORDER BY count DESC, label
    LIMIT :top
"""
TOP_SOURCES = """
    SELECT src_ip AS label, count(*) AS count
    FROM alerts
    WHERE received_at >= :since AND received_at < :until AND src_ip IS NOT NULL
    GROUP BY src_ip
    ORDER BY count DESC, label
    LIMIT :top
"""
VERDICTS = """
    SELECT output->>'severity' AS label, count(*) AS count
    FROM results
    WHERE agent = 'triage' AND output IS NOT NULL
      AND recorded_at >= :since AND recorded_at < :until
    GROUP BY 1
    ORDER BY count DESC, label
"""
ACTIONS = """
    SELECT output->>'action' AS label, count(*) AS count
    FROM results
    WHERE agent = 'triage' AND output IS NOT NULL
      AND recorded_at >= :since AND recorded_at < :until
    GROUP BY 1
    ORDER BY count DESC, label
"""
# One line for each thing that was found, not for each of a hundred beats of one beacon. Another
# agent may be called "triage" and score in words: the cast is for numbers only.
MOST_SERIOUS = """
    WITH verdicts AS (
        SELECT CAST(task_id AS text) AS task_id,
               coalesce(output->>'alert_id', '') AS alert_id,
               CASE WHEN jsonb_typeof(output->'score') = 'number'
                    THEN CAST(output->>'score' AS float8) ELSE 0 END AS score,
               coalesce(output->>'classification', '') AS classification,
               output->>'action' AS action,
               coalesce(output->'reasons'->>0, '') AS reason
        FROM results
        WHERE agent = 'triage' AND output->>'action' IN ('contain', 'investigate')
          AND recorded_at >= :since AND recorded_at < :until
    ), ranked AS (
        SELECT verdicts.*,
               count(*) OVER (PARTITION BY classification, reason) AS alike,
               row_number() OVER (
                   PARTITION BY classification, reason ORDER BY score DESC, task_id
               ) AS place
        FROM verdicts
    )
    SELECT task_id, alert_id, score, classification, action, reason, alike
    FROM ranked
    WHERE place = 1
    ORDER BY score DESC, alike DESC, task_id
    LIMIT :top
"""
FAILURES = """
    SELECT agent || ': ' || coalesce(error->>'type', 'no error recorded') AS label,
           count(*) AS count
    FROM results
    WHERE error IS NOT NULL AND recorded_at >= :since AND recorded_at < :until
    GROUP BY 1
    ORDER BY count DESC, label
    LIMIT :top
"""
DEAD_LETTERS = """
    SELECT stream || ': ' || reason AS label, count(*) AS count
    FROM dead_letters
    WHERE created_at >= :since AND created_at < :until
    GROUP BY 1
    ORDER BY count DESC, label
    LIMIT :top
"""


class Report(Agent[ReportInput, DailyReport]):
    """Sum up a day of the record. Changes nothing."""

    name = "report"
    timeout = timedelta(minutes=5)
    schedules = (crontab("0 6 * * *", timezone="Asia/Riyadh"),)

    async def run(self, task_input: ReportInput, ctx: RunContext) -> DailyReport:
        """One query a list, one after the other: a report is in no hurry."""
        # The tick's own time where there is one, so that a late or repeated attempt reports on the
        # same period.
        until = task_input.until or ctx.task.run_at or datetime.now(UTC)
        length = timedelta(hours=task_input.hours)
        period = {"since": until - length, "until": until}
        listed = period | {"top": task_input.top}
        before = {"since": until - 2 * length, "until": until - length}

        by_severity = _counted(await ctx.query(ALERTS_BY_SEVERITY, **period))
        figures = DailyReport(
            **period,
            headlines=[],
            agents=[AgentFigures.model_validate(row) for row in await ctx.query(AGENTS, **period)],
            alerts=_total(by_severity),
            alerts_before=_total(_counted(await ctx.query(ALERTS_BY_SEVERITY, **before))),
            alerts_by_severity=by_severity,
            top_signatures=_counted(await ctx.query(TOP_SIGNATURES, **listed)),
            top_sources=_counted(await ctx.query(TOP_SOURCES, **listed)),
            verdicts_by_severity=_counted(await ctx.query(VERDICTS, **period)),
            recommended_actions=_counted(await ctx.query(ACTIONS, **period)),
            most_serious=[
                Serious.model_validate(row) for row in await ctx.query(MOST_SERIOUS, **listed)
            ],
            failures=_counted(await ctx.query(FAILURES, **listed)),
            dead_letters=_counted(await ctx.query(DEAD_LETTERS, **listed)),
        )
        return figures.model_copy(update={"headlines": headlines(figures)})


def headlines(report: DailyReport) -> list[str]:
    """The sentences to read first, the most pressing ones first; never empty."""
    sentences = [
        *_about_actions(report),
        *_about_agents(report),
        *_about_losses(report),
        *_about_volume(report),
    ]
    return sentences or ["Nothing was received and nothing ran."]


def _about_actions(report: DailyReport) -> list[str]:
    actions = {each.label: each.count for each in report.recommended_actions}
    sentences = [
        (actions.get("contain", 0), "triage recommends containment"),
        (actions.get("investigate", 0), "triage recommends an investigation"),
        (actions.get("check_device", 0), "somebody should look at a device"),
    ]
    return [f"For {_amount(count, 'alert')} {what}." for count, what in sentences if count]


def _about_agents(report: DailyReport) -> list[str]:
    sentences = []
    for each in report.agents:
        share = each.unsuccessful / each.tasks if each.tasks else 0.0
        if share >= NOTABLE_FAILURE_SHARE:
            sentences.append(
                f"Agent {each.agent} ended {each.unsuccessful} of {_amount(each.tasks, 'task')}"
                f" without success ({share:.0%})."
            )
        if each.unfinished:
            sentences.append(
                f"Agent {each.agent} has {_amount(each.unfinished, 'task')} not finished yet."
            )
    return sentences


def _about_losses(report: DailyReport) -> list[str]:
    total = _total(report.dead_letters)
    if not total:
        return []
    first = report.dead_letters[0]
    return [f"{_amount(total, 'message')} set aside, most of them on {first.label}."]


def _about_volume(report: DailyReport) -> list[str]:
    now, before = report.alerts, report.alerts_before
    if not now and not before:
        return []
    sentence = f"{_amount(now, 'alert')} came in, after {before} in the period before"
    if max(now, before) >= FEW_ALERTS:
        if not now:
            return [f"No alert came in, after {before} in the period before: is a sensor down?"]
        if now >= before * NOTABLE_CHANGE:
            sentence += ", far more than usual" if before else ", the first ones"
        elif before >= now * NOTABLE_CHANGE:
            sentence += ", far fewer than usual"
    loudest = report.top_signatures[:1]
    if loudest:
        sentence += f"; the most frequent signature made up {loudest[0].count / now:.0%} of them"
    return [sentence + "."]


def _counted(rows: list[dict[str, Any]]) -> list[Counted]:
    # A label can be missing where an agent of that name returned something else.
    return [Counted(label=row["label"] or "unknown", count=row["count"]) for row in rows]


def _total(lines: list[Counted]) -> int:
    return sum(each.count for each in lines)


def _amount(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
