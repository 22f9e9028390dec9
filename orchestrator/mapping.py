"""Which MQTT topics become alerts, and when: the file of mappings, checked as it is read.

`reading.py` has the rule by which one message is judged; docs/bridge.md has the file explained.
"""

import re
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from orchestrator.alert import Severity
from orchestrator.errors import InvalidMapping

Finite = Annotated[float, Field(allow_inf_nan=False)]
Pointer = Annotated[str, StringConstraints(pattern=r"^(/[^/]*)*$", max_length=500)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=500)]

PLACE = re.compile(r"\{([^{}]*)\}")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class PayloadForm(StrEnum):
    """What stands in a message."""

    JSON = "json"
    NUMBER = "number"
    TEXT = "text"


class When(StrEnum):
    """Which readings are alerts."""

    ABOVE = "above"
    BELOW = "below"
    OUTSIDE = "outside"
    EQUALS = "equals"
    CHANGED_TO = "changed-to"


# What each condition asks for beside it, and what it has no use for.
_NEEDS: dict[When, tuple[str, ...]] = {
    When.ABOVE: ("threshold",),
    When.BELOW: ("threshold",),
    When.OUTSIDE: ("low", "high"),
    When.EQUALS: ("target",),
    When.CHANGED_TO: ("target",),
}


class Step(BaseModel):
    """From here on it is more serious."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Finite
    severity: Severity


class TopicMapping(BaseModel):
    """One `[[mapping]]` of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,99}$")]
    topic: Line
    payload: PayloadForm = PayloadForm.JSON
    value: Pointer = ""  # where in a JSON payload; empty: all of it
    occurred_at: Pointer | None = None  # where a JSON payload says when
    device: Line = "{topic}"
    metric: Line
    when: When
    threshold: Finite | None = None
    low: Finite | None = None
    high: Finite | None = None
    target: StrictBool | StrictInt | StrictFloat | StrictStr | None = None
    severity: Severity = Severity.MEDIUM
    steps: tuple[Step, ...] = ()
    message: Line | None = None
    retained: Literal["alert", "ignore"] = "alert"

    @property
    def levels(self) -> tuple[str, ...]:
        """The topic as it is written, level by level."""
        return tuple(self.topic.split("/"))

    @property
    def topic_filter(self) -> str:
        """What the broker is asked for: `{name}` is a `+` to it."""
        return "/".join("+" if PLACE.fullmatch(each) else each for each in self.levels)

    @property
    def names(self) -> tuple[str, ...]:
        """What the topic's levels are called."""
        return tuple(found[1] for each in self.levels if (found := PLACE.fullmatch(each)))

    @model_validator(mode="after")
    def _topic_is_narrow(self) -> Self:
        first, *rest = self.levels
        if "#" in first or "+" in first or "{" in first or first.startswith("$"):
            raise ValueError(
                f"topic: {self.topic!r} begins with a wildcard; name the first level, as in"
                ' "plant/{site}/#": the bridge hears what it was told to hear, never everything'
            )
        for number, level in enumerate(rest, start=2):
            if level == "#" and number < len(self.levels):
                raise ValueError("topic: '#' stands at the end only")
            if level not in {"#", "+"} and not PLACE.fullmatch(level) and set(level) & set("#+{}"):
                raise ValueError(
                    f"topic: level {number}, {level!r}, is neither a word nor '+', '#' or"
                    " '{name}' alone"
                )
        wrong = [each for each in self.names if not re.fullmatch("[a-z][a-z0-9_]{0,49}", each)]
        if wrong or len(set(self.names)) < len(self.names) or set(self.names) & _OURS:
            raise ValueError(
                "topic: the names of levels are lower-case words, each once, and none of"
                f" {', '.join(sorted(_OURS))}"
            )
        if CONTROL.search(self.topic):
            raise ValueError("topic: control characters stand in no topic")
        return self

    @model_validator(mode="after")
    def _places_are_known(self) -> Self:
        known = {*self.names, "topic"}
        for field, allowed in (("device", known), ("message", known | _OURS)):
            for each in PLACE.findall(getattr(self, field) or ""):
                if each not in allowed:
                    raise ValueError(f"{field}: {_unknown('{%s}', each, allowed)}")
        return self

    @model_validator(mode="after")
    def _condition_is_complete(self) -> Self:
        needed = _NEEDS[self.when]
        for field in ("threshold", "low", "high", "target"):
            given = getattr(self, field) is not None
            if given != (field in needed):
                raise ValueError(
                    f"{field}: when = {self.when.value!r} "
                    + (f"needs {' and '.join(needed)}" if field in needed else "has no use for it")
                )
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low: is not below high")
        if self.target is not None and self.payload is not PayloadForm.JSON:
            numeric = isinstance(self.target, int | float) and not isinstance(self.target, bool)
            if numeric != (self.payload is PayloadForm.NUMBER):
                raise ValueError(f"target: a payload of {self.payload.value!r} is never this")
        if self.payload is not PayloadForm.JSON and (self.value or self.occurred_at is not None):
            raise ValueError("value: only a payload of 'json' has places within it")
        if self.payload is PayloadForm.TEXT and self.when not in {When.EQUALS, When.CHANGED_TO}:
            raise ValueError(f"payload: 'text' is never {self.when.value}; did you mean 'number'?")
        self._check_steps()
        return self

    def _check_steps(self) -> None:
        if self.steps and self.when not in {When.ABOVE, When.BELOW}:
            raise ValueError("steps: only when = 'above' or 'below' has them")
        sign = -1 if self.when is When.BELOW else 1
        climbing = [sign * each for each in (self.threshold, *(s.threshold for s in self.steps))
                    if each is not None]  # fmt: skip
        if any(later <= earlier for earlier, later in pairwise(climbing)):
            raise ValueError("steps: each goes further than the one before, and than threshold")


_OURS = frozenset({"topic", "value", "threshold", "low", "high", "target", "device", "metric"})


def load_mappings(path: Path) -> tuple[TopicMapping, ...]:
    """The mappings of a TOML file. Raises InvalidMapping with everything that is wrong there."""
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidMapping(
            f"{path}: {error.strerror}; AURORA_BRIDGE_MAPPINGS names a TOML file with [[mapping]]s"
        ) from error
    except ValueError as error:
        raise InvalidMapping(f"{path}: not TOML: {error}") from error
    if strange := sorted(set(found) - {"mapping"}):
        raise InvalidMapping(f"{path}: {_unknown('%s', strange[0], {'mapping'})}")
    tables = found.get("mapping")
    if not isinstance(tables, list) or not tables:
        raise InvalidMapping(f"{path}: no [[mapping]]; docs/bridge.md has one to copy")
    problems: list[str] = []
    mappings: list[TopicMapping] = []
    for number, table in enumerate(tables, start=1):
        named = table.get("name") if isinstance(table, dict) else None
        where = f"{path}: mapping {number}" + (f" ({named!r})" if isinstance(named, str) else "")
        try:
            mappings.append(TopicMapping.model_validate(table))
        except ValidationError as error:
            problems += [f"{where}: {each}" for each in _readable(error)]
            continue
        if any(mappings[-1].name == each.name for each in mappings[:-1]):
            problems.append(f"{where}: name: another mapping has it")
    if problems:
        raise InvalidMapping("; ".join(problems))
    return tuple(mappings)


def _unknown(shown: str, name: str, known: Sequence[str] | set[str] | frozenset[str]) -> str:
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    right = f"did you mean {shown % near[0]}?" if near else f"known: {', '.join(sorted(known))}"
    return f"unknown {shown % name}; {right}"


def _readable(error: ValidationError) -> list[str]:
    problems = []
    for each in error.errors(include_url=False, include_input=False):
        place = "/".join(str(part) for part in each["loc"])
        if each["type"] == "extra_forbidden":
            model = Step if each["loc"][0] == "steps" else TopicMapping
            problems.append(_unknown("%s", str(each["loc"][-1]), set(model.model_fields)))
        else:
            said = each["msg"].removeprefix("Value error, ")
            problems.append(f"{place}: {said}" if place else said)
    return problems
