"""What a worker and the child process of one attempt say to each other: JSON lines, no pickle.

Both ends read this file. What comes from a child is data to be checked: agent code runs there.
"""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter
from pydantic_core import from_json, to_json

from orchestrator.errors import (
    InvalidInput,
    NotConnected,
    OrchestratorError,
    Overloaded,
    PayloadTooLarge,
    Rejected,
    TaskIdConflict,
    TaskNotFound,
    TaskUnsuccessful,
    Unavailable,
    UnknownAgent,
)
from orchestrator.model_failure import ModelFailed
from orchestrator.model_options import ModelOptions
from orchestrator.outcome import Completed, Failed, Outcome, Retrying, SetAside
from orchestrator.provider import Answered, Limited, News
from orchestrator.provider import Unavailable as Away
from orchestrator.task import Task

BESIDE_OUTPUT = 128 * 1024  # bytes of a line beside a result: a traceback, escaped, fits


class Start(BaseModel):
    """The first line that a child reads: what to run, for whom, and within which limits."""

    model_config = ConfigDict(frozen=True)

    nonce: str  # stands in every line of the child's: other writers to its channel are told apart
    parent: int  # pid
    path: tuple[str, ...]  # the worker's sys.path: the agent's module is found as there
    module: str
    task: Task
    attempt: int
    worker: str
    deadline: AwareDatetime
    memory_limit: int | None  # bytes
    cpu_limit: timedelta | None
    max_output: int  # bytes
    log_level: int
    traceparent: str | None = None  # of the attempt's span; None: nobody wants the child's
    trace_content: bool = False


def line_limit(max_output: int) -> int:
    """Bytes of the longest line: a result stands in it as a string, at worst all of it escaped."""
    return 2 * max_output + BESIDE_OUTPUT


def encode(message: Mapping[str, Any]) -> bytes:
    """One line. What has no place in JSON raises ValueError; NaN and infinity become null."""
    return to_json(message, inf_nan_mode="null") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """What a line says. Raises ValueError."""
    found = from_json(line, allow_inf_nan=False)
    if not isinstance(found, dict):
        raise ValueError("a line that is no JSON object")  # noqa: TRY004 - of one kind with the rest
    return found


# Outcomes: those that a runner gives.
_OUTCOMES: dict[str, TypeAdapter[Any]] = {
    each.__name__: TypeAdapter(each) for each in (Completed, Retrying, Failed, SetAside)
}


def say_outcome(outcome: Outcome) -> list[Any]:
    """Kind and fields."""
    kind = type(outcome).__name__
    return [kind, _OUTCOMES[kind].dump_python(outcome, mode="json")]


def hear_outcome(said: Any, *, max_output: int) -> Outcome:
    """The outcome, checked: its output goes into the record unparsed. Raises ValueError."""
    kind, fields = said
    found: Outcome = _OUTCOMES[kind].validate_python(fields)
    if isinstance(found, Completed):
        from_json(found.output, allow_inf_nan=False)
        if len(found.output) > max_output:
            raise PayloadTooLarge(len(found.output), max_output, setting="AURORA_MAX_OUTPUT")
    return found


# Errors: what an agent may catch is the same class on its side, with its data.
_ERRORS: dict[str, type[Exception]] = {
    each.__name__: each
    for each in (
        InvalidInput, ModelFailed, NotConnected, OrchestratorError, Overloaded, PayloadTooLarge,
        Rejected, TaskIdConflict, TaskNotFound, TaskUnsuccessful, TimeoutError, TypeError,
        Unavailable, UnknownAgent, ValueError,
    )
}  # fmt: skip


def say_error(error: Exception) -> dict[str, Any]:
    """Class, text and data; of a class that does not cross, its nearest base that does."""
    known = next((c for c in type(error).__mro__ if _ERRORS.get(c.__name__) is c), None)
    if known is None:
        return {"type": "", "message": f"{type(error).__name__}: {error}"[:8_000], "data": {}}
    is_ours = issubclass(known, OrchestratorError)
    return {
        "type": known.__name__,
        "message": str(error)[:8_000],
        "data": vars(error) if is_ours else {},
    }


def hear_error(said: Mapping[str, Any]) -> Exception:
    """The error to raise; a RuntimeError where its class does not cross."""
    kind = _ERRORS.get(said["type"], RuntimeError)
    # Not through __init__, which composes the text from arguments of each class' own.
    error = kind.__new__(kind, said["message"])
    error.__dict__.update(said["data"])
    return error


def say_options(options: ModelOptions) -> dict[str, Any]:
    """The options with their keys: who asks a model, asks its provider itself."""
    keys = {name: key.get_secret_value() for name, key in options.keys.items()}
    return {**options.model_dump(mode="json"), "keys": keys}


# News of a provider.
_NEWS: dict[str, TypeAdapter[News]] = {
    each.__name__: TypeAdapter(each) for each in (Answered, Limited, Away)
}


def say_news(news: News) -> list[Any]:
    """Kind and fields."""
    kind = type(news).__name__
    return [kind, _NEWS[kind].dump_python(news, mode="json")]


def hear_news(said: Any) -> News:
    """What `say_news` was given. Raises LookupError, ValueError."""
    kind, fields = said
    return _NEWS[kind].validate_python(fields)


# Values of rows and parameters: what Postgres has types for and JSON has not keeps its own. A
# suspect is run without its author's knowledge; its rows must not look different then.
_VALUES: dict[type, TypeAdapter[Any]] = {
    each: TypeAdapter(each)
    for each in (
        datetime, date, time, timedelta, Decimal, UUID,
        IPv4Address, IPv6Address, IPv4Network, IPv6Network,
    )
}  # fmt: skip
_BY_NAME = {kind.__name__: adapter for kind, adapter in _VALUES.items()}


def say_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Each value as [type, text], or ["", value] where it is JSON already."""
    return {name: _say_value(value) for name, value in values.items()}


def hear_values(said: Mapping[str, Any]) -> dict[str, Any]:
    """What `say_values` was given."""
    return {
        name: _BY_NAME[kind].validate_json(to_json(value)) if kind else value
        for name, (kind, value) in said.items()
    }


def _say_value(value: Any) -> list[Any]:
    if isinstance(value, bytes):
        raise TypeError("bytes do not cross to or from a child process; encode them in the SQL")
    for kind in type(value).__mro__:
        if kind in _VALUES:
            return [kind.__name__, _VALUES[kind].dump_python(value, mode="json")]
    return ["", value]
