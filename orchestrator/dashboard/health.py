"""Is all well? A rule over what was found: one sentence, and what needs somebody, worst first."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from math import inf

from orchestrator.dashboard.text import duration
from orchestrator.db.overview import MOST_LOOKED_AT, Group
from orchestrator.db.statistics import RecordStatistics
from orchestrator.streams.names import ORCHESTRATOR, RECORDER
from orchestrator.streams.statistics import StreamStatistics

LATE = 60.0  # seconds that a task may wait before somebody should know
VERY_LATE = 600.0
BEHIND = 10_000  # entries that a group of ours may be behind: some seconds of its work


class Level(IntEnum):
    """How much it matters."""

    FINE = 0
    WARNING = 1
    BAD = 2

    @property
    def mark(self) -> str:
        """The shape and colour that stand for it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look at the servers and the record came to; None of what did not answer in time."""

    record: RecordStatistics | None
    streams: Sequence[StreamStatistics] | None
    failed: Sequence[Group] = ()
    letters: Sequence[Group] | None = ()  # None: this key may not see them
    alerts: Sequence[Group] | None = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """One thing that needs somebody, and where to look at it."""

    level: Level
    title: str
    said: str  # what to do, or an example in the words of what went wrong
    path: str
    command: str | None = None  # to be typed
    query: dict[str, str]
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The sentence, and what it rests on."""

    level: Level
    word: str
    sentence: str
    concerns: Sequence[Concern]


def judge(found: Found) -> Health:
    """The health of what was found."""
    concerns = sorted(
        (*_servers(found), *_waiting(found), *_groups_behind(found), *_wrong(found)),
        # What has no time is so now.
        key=lambda each: (-each.level, -(each.at.timestamp() if each.at else inf)),
    )
    level = max((each.level for each in concerns), default=Level.FINE)
    # What failed needs somebody; the system that reports it is well.
    condition = [*_servers(found), *_waiting(found), *_groups_behind(found)]
    if condition:
        worst = max(each.level for each in condition)
        word = "Not working" if worst is Level.BAD else "Degraded"
        sentence = "; ".join(each.title for each in condition[:2])
        return Health(level=worst, word=word, sentence=f"{sentence}.", concerns=concerns)
    word = "Working"
    sentence = "Every queue is served and nothing waits long."
    if level > Level.FINE:
        many = len(concerns)
        sentence = f"{sentence} {many} {'thing needs' if many == 1 else 'things need'} somebody."
    return Health(level=Level.FINE, word=word, sentence=sentence, concerns=concerns)


def _servers(found: Found) -> Iterator[Concern]:
    if found.streams is None:
        yield _condition(
            Level.BAD,
            "Redis does not answer",
            "Tasks are accepted and wait in Postgres. To see what is wrong:",
            "aurora doctor",
        )
    if found.record is None:
        yield _condition(
            Level.BAD, "Postgres does not answer in time", "To see what is wrong:", "aurora doctor"
        )


def _waiting(found: Found) -> Iterator[Concern]:
    if found.record is None:
        return
    for queue, seconds in sorted(found.record.oldest_waiting.items(), key=lambda each: -each[1]):
        if seconds < LATE:
            continue
        what = f"Queue {queue} is {duration(seconds)} behind"
        is_idle = found.streams is not None and not _has_pending(found.streams, queue)
        why = "No worker has taken work of it" if is_idle else "Its workers are busy"
        yield Concern(
            level=Level.BAD if seconds >= VERY_LATE else Level.WARNING,
            title=what,
            said=f"{why}. Start one:",
            command=f"AURORA_QUEUES={queue} aurora worker",
            path="/tasks",
            query={"queue": queue, "state": "queued", "window": "all"},
        )


def _groups_behind(found: Found) -> Iterator[Concern]:
    for stream in found.streams or ():
        for group in stream.groups:
            if group.group == RECORDER and group.backlog > BEHIND:
                yield _condition(
                    Level.WARNING,
                    f"The record is {group.backlog:,} entries behind {stream.key}",
                    "Pages show the past until it has caught up. Start another:",
                    "aurora recorder",
                )


def _wrong(found: Found) -> Iterator[Concern]:
    for each in found.failed:
        yield Concern(
            level=Level.WARNING,
            title=f"{_count(each)} failed: {each.agent}, {each.cause}",
            said=each.example or "",
            path="/tasks",
            query={"state": "failed", "agent": each.agent or ""},
            at=each.latest,
        )
    for each in found.letters or ():
        yield Concern(
            level=Level.WARNING,
            title=f"{_count(each)} dead {_letters(each.count)}: {each.cause.replace('_', ' ')}",
            said=each.example or "",
            path="/dead-letters",
            query={"reason": each.cause},
            at=each.latest,
        )
    for each in found.alerts or ():
        yield Concern(
            level=Level.BAD if each.cause == "critical" else Level.WARNING,
            title=f"{_count(each)} {each.cause} {_alerts(each.count)} nobody has acknowledged",
            said=each.example or "",
            path="/alerts",
            query={"severity": each.cause, "acknowledged": "no"},
            at=each.latest,
        )


def _condition(level: Level, title: str, said: str, command: str) -> Concern:
    return Concern(level=level, title=title, said=said, command=command, path="", query={})


def _has_pending(streams: Iterable[StreamStatistics], queue: str) -> bool:
    """True when a worker holds something of this queue."""
    lanes = [each for each in streams if _queue_of(each.key) == queue]
    return any(
        group.pending for lane in lanes for group in lane.groups if group.group == ORCHESTRATOR
    )


def _queue_of(key: str) -> str:
    parts = key.partition(":agent:tasks")[2].split(":")
    return next((each for each in parts if each not in {"", "high", "low"}), "default")


def _count(group: Group) -> str:
    return f"{group.count:,}+" if group.count >= MOST_LOOKED_AT else f"{group.count:,}"


def _letters(count: int) -> str:
    return "letter" if count == 1 else "letters"


def _alerts(count: int) -> str:
    return "alert that" if count == 1 else "alerts that"
