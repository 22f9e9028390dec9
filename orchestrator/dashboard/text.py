"""Text from alerts, agents and messages made safe to look at: nothing in it is hidden.

Markup is escaped by the templates. This is about what escaping leaves: control characters, and
those that turn the direction of reading, with which a name can be made to look like another.
"""

import json
import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

# C0 and C1 but tab and line feed; soft hyphen; Arabic letter mark; zero-width and direction marks;
# line and paragraph separators; embeddings, overrides, isolates; invisible operators; variation
# selectors' neighbours that print nothing; byte order mark; tags; lone surrogates.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
LONGEST = 64 * 1024  # characters of one value on a page; a browser is slow with more
NONE = "\u2013"
LEAST_SHOWN = Decimal("0.0001")  # dollars
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def visible(text: str) -> str:
    """What cannot be seen is named: ESC as `␛`, a right-to-left override as `⟨U+202E⟩`."""
    return _HIDDEN.sub(_named, text)


def as_json(value: Any) -> str:
    """Indented JSON, cut where it would be too long for a page."""
    said = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if len(said) <= LONGEST:
        return said
    return f"{said[:LONGEST]}\n... cut: {len(said):,} characters in all"


def brief(value: Any, limit: int = 120) -> str:
    """One line that says what a value is about."""
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    said = " ".join(said[: 4 * limit].split())
    return said if len(said) <= limit else f"{said[: limit - 1]}…"


def duration(span: timedelta | float | None) -> str:
    """3 ms, 1.4 s, 2 min 5 s, 3 h 10 min, 4 d 2 h; a dash for none."""
    if span is None:
        return NONE
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if seconds < 0.9995:  # noqa: PLR2004 - from here on it would read 1000 ms
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004
    whole = round(seconds)
    for size, unit in _UNITS:
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count} {unit}" + _rest(rest, size)
    return f"{whole} s"


def ago(moment: datetime, now: datetime) -> str:
    """As in "12 s ago" and "in 3 min": the coarsest unit alone, to be read at a glance."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    whole = abs(round(seconds))
    size, unit = next(((size, unit) for size, unit in _UNITS if whole >= size), (1, "s"))
    said = f"{whole // size} {unit}"
    return f"{said} ago" if seconds > 0 else f"in {said}"


def absolute(moment: datetime) -> str:
    """The moment in full, in UTC to the millisecond."""
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"


def counted(count: int, most: int) -> str:
    """A count that was ended at `most` + 1: "9,312", "10k+"."""
    if count <= most:
        return f"{count:,}"
    return f"{most // 1000}k+" if most >= 1000 else f"{most}+"  # noqa: PLR2004 - a thousand


def dollars(cost: Decimal) -> str:
    """To a hundredth of a cent: "$12.3456"; what is less and not nothing is said to be so."""
    if 0 < cost < LEAST_SHOWN:
        return f"<${LEAST_SHOWN}"
    return f"${cost:,.4f}"


def exactly(number: Decimal) -> str:
    """All its digits."""
    return f"{number:f}"


def _rest(seconds: int, size: int) -> str:
    smaller = {86_400: (3_600, "h"), 3_600: (60, "min"), 60: (1, "s")}
    step, unit = smaller[size]
    return f" {seconds // step} {unit}" if seconds >= step else ""


def _named(found: re.Match[str]) -> str:
    code = ord(found.group())
    # Unicode has pictures of the C0 controls.
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"  # noqa: PLR2004 - the space
