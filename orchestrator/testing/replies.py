"""What the scripted provider can be told to reply: values, checked where they are made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Call:
    """The model asks for a tool. `arguments` as an object, or as the raw text that it wrote."""

    tool: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The arguments as they stand on the wire."""
        return (
            self.arguments if isinstance(self.arguments, str) else json.dumps(dict(self.arguments))
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The model answers: with text, calls of tools, or the output that the agent's type asks for.

    `output` becomes what the request asks for: a call of its output tool, or JSON as text. Tokens
    that are not given are counted as one for every four characters begun. Raises ValueError.
    """

    text: str | None = None
    calls: Sequence[Call] = ()
    output: Any = None
    input_tokens: int | None = None  # all of them, the cached ones as well
    output_tokens: int | None = None
    cached_tokens: int = 0
    seconds: float = 0.0  # that the model takes for it

    def __post_init__(self) -> None:
        if self.output is not None and (self.text is not None or self.calls):
            raise ValueError("an Answer with output has neither text nor calls: it is the output")
        if self.text is None and not self.calls and self.output is None:
            raise ValueError("an Answer needs text, calls or output; for an empty one: text=''")
        if isinstance(self.calls, Call):
            raise ValueError("an Answer's calls are several: calls=[Call(...)]")  # noqa: TRY004
        for name in ("input_tokens", "output_tokens", "cached_tokens", "seconds"):
            _not_negative(name, getattr(self, name))
        if self.input_tokens is not None and self.cached_tokens > self.input_tokens:
            raise ValueError(
                f"cached_tokens ({self.cached_tokens}) are part of input_tokens"
                f" ({self.input_tokens}) and cannot be more"
            )


@dataclass(frozen=True, slots=True)
class Status:
    """An error status. `body` is OpenAI's form of an error for that status unless given.

    `retry_after`: seconds, or a moment, which is sent as an HTTP date. Raises ValueError.
    """

    code: int
    retry_after: float | datetime | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None  # a str is sent as it is, anything else as JSON
    message: str | None = None  # in OpenAI's form of an error
    error_code: str | None = None  # the same

    def __post_init__(self) -> None:
        if not 400 <= self.code <= 599:  # noqa: PLR2004 - the errors of HTTP
            raise ValueError(
                f"Status is for errors, 400 to 599, not {self.code}; Answer is 200,"
                " and Malformed is a 200 that nobody can read"
            )
        if isinstance(self.retry_after, datetime):
            if self.retry_after.tzinfo is None:
                raise ValueError("retry_after as a moment needs a time zone: datetime.now(UTC)")
        else:
            _not_negative("retry_after", self.retry_after)


@dataclass(frozen=True, slots=True)
class Hang:
    """Not a byte for so many seconds; then the connection is closed, or `then` is the answer."""

    seconds: float
    then: Answer | None = None

    def __post_init__(self) -> None:
        _not_negative("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A 200 whose body is this, whatever it is. For a model that talks nonsense: Answer(text)."""

    body: str
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Refused:
    """The model declines, or the provider's filter does. Both are answers, and cost tokens."""

    text: str = "I'm sorry, I cannot help with that."
    by: Literal["model", "filter"] = "model"
    input_tokens: int | None = None
    output_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.by not in ("model", "filter"):
            raise ValueError(f"Refused is by 'model' or by 'filter', not {self.by!r}")
        _not_negative("input_tokens", self.input_tokens)
        _not_negative("output_tokens", self.output_tokens)


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The connection ends in the middle of this answer; without one, before the first byte."""

    during: Answer | None = None


Reply = Answer | Status | Hang | Malformed | Refused | Disconnect
REPLIES = (Answer, Status, Hang, Malformed, Refused, Disconnect)


def _not_negative(name: str, value: float | None) -> None:
    if value is not None and not value >= 0:
        raise ValueError(f"{name} cannot be {value}: 0 or more")
