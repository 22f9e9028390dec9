"""Judges a file of alerts line by line as the alert handlers will; `ingest` and `validate` ask."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO

from orchestrator.alert import Alert, AlertKind
from orchestrator.errors import PayloadTooLarge, Rejected
from orchestrator.formats.foreign import NotAnAlert
from orchestrator.formats.normalise import InvalidAlert, content_id, normalise, own_kind
from orchestrator.streams.message import ENVELOPE, decode

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # what some editors put before the first line
MOST_TOLD = 1000  # bad lines, and names, that are told one by one; the others are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line, and what it is: an alert, an event of another kind, or bad."""

    number: int
    end: int  # bytes of the file up to here
    data: bytes
    alert: Alert | None = None
    other: str | None = None  # the kind of event
    problems: tuple[tuple[str, str], ...] = ()  # (field or "", what would be right) each


@dataclass(slots=True)
class Tally:
    """What a file's lines were."""

    lines: int = 0
    alerts: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    told: list[Line] = field(default_factory=list)  # the first bad ones

    def add(self, line: Line) -> None:
        """Count it."""
        self.lines += 1
        if line.alert is not None:
            self.alerts += 1
            self.kinds[line.alert.kind] += 1
            _count(self.sources, line.alert.source)
        elif line.other is not None:
            _count(self.others, line.other)
        else:
            self.bad += 1
            if len(self.told) < MOST_TOLD:
                self.told.append(line)


def _count(names: Counter[str], name: str) -> None:
    # Whoever wrote the file chose the names.
    names[name if name in names or len(names) < MOST_TOLD else "…"] += 1


def judge(file: IO[bytes], *, kind: AlertKind, limit: int) -> Iterator[Line]:
    """Each line that is not blank. `kind`: of alerts that do not say; `limit`: bytes of a message.

    An alert that brings no id has the one of its content, so a file may be read again.
    """
    number = end = 0
    # One byte more than an alert may have, so that a file without line ends is never held whole.
    while data := file.readline(limit + 1):
        number += 1
        size = len(data)
        while not data.endswith(b"\n") and (more := file.readline(limit + 1)):
            size += len(more)
            if more.endswith(b"\n"):
                break
        end += size
        if number == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        if data.strip():
            yield _line(number, end, data.strip(), size=size, kind=kind, limit=limit)


def _line(number: int, end: int, data: bytes, *, size: int, kind: AlertKind, limit: int) -> Line:
    try:
        if size > limit:
            raise PayloadTooLarge(size, limit)
        # The reader of the streams, so that nothing is taken here and set aside there.
        entry = {b"data": data}
        message = decode(entry, stream="", entry_id="0-0", limit=limit - ENVELOPE)
        alert = normalise(
            message.data,
            id=content_id(message.data),
            kind=own_kind(message.data) or kind,
            received_at=datetime.now(UTC),
        )
    except NotAnAlert as error:
        return Line(number=number, end=end, data=data, other=error.event_type)
    except InvalidAlert as error:
        return Line(number=number, end=end, data=data, problems=error.problems)
    except Rejected as error:
        return Line(number=number, end=end, data=data, problems=(("", str(error)),))
    return Line(number=number, end=end, data=data, alert=alert)
