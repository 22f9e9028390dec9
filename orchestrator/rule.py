"""The class that users write beside their agents: which alerts become work, and of which agent.

The registry finds rules as it finds agents; the alert handlers ask them through `ask` and
`task_for`, in which whatever goes wrong in a rule becomes one error of that rule.
"""

import hashlib
import inspect
import logging
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, get_type_hints

from pydantic import BaseModel, ValidationError

from orchestrator.agent import Agent
from orchestrator.alert import Alert, AlertKind, Severity, clean_text
from orchestrator.errors import ConfigurationError, DeadReason, Rejected, text_of
from orchestrator.task import Priority, Task, idempotent_id, is_name

logger = logging.getLogger("aurora.rules")

LONGEST_KEY = 200  # characters; an index of Postgres holds 2,700 bytes
LONGEST_COMPLAINT = 500  # characters of what a rule raised: the alert's text may be in it
LONGEST_WINDOW = timedelta(days=30)
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_METHODS = ("matches", "correlation", "input", "priority")


@dataclass(frozen=True, slots=True, kw_only=True)
class Investigation:
    """One story: alerts that a rule holds together by a key. What a rule is told of it."""

    id: str
    rule: str
    key: str
    opened_at: datetime


class Rule:
    """Which alerts become tasks of `agent`. Keeps no state: one instance serves a whole process.

    Without `correlation` each alert that matches is a task. With it, alerts of one key within
    `window` are one investigation, which makes two tasks at most: the first after `gather`, so that
    a storm is one input, and one at once when the first critical alert comes.

    A rule must be a function of the alert alone, since an alert may be read again. What it raises
    sets the alert aside for this rule and stops no other. A class that is only a foundation for
    others says `class Ours(Rule, abstract=True)`.
    """

    name: ClassVar[str]  # stands in the record; default: the class name in snake_case
    agent: ClassVar[type[Agent[Any, Any]]]
    kinds: ClassVar[AbstractSet[str]] = frozenset({AlertKind.NETWORK})
    min_severity: ClassVar[Severity] = Severity.INFO
    signature: ClassVar[str | None] = None  # a regular expression, searched for in any case
    window: ClassVar[timedelta] = timedelta(minutes=10)  # from the first alert, not the last
    gather: ClassVar[timedelta] = timedelta(seconds=5)  # never waited for with a critical alert

    def matches(self, alert: Alert) -> bool:
        """True when this alert is work; asked once kinds, severity and signature agree."""
        del alert
        return True

    def correlation(self, alert: Alert) -> str | None:
        """What alerts of one story have in common; None for an alert by itself."""
        del alert
        return None

    def input(self, alert: Alert, investigation: Investigation | None) -> Any:
        """The input of the task; `investigation` is None for an alert by itself."""
        del investigation
        return alert

    def priority(self, alert: Alert) -> Priority:
        """High and critical alerts overtake the others."""
        return Priority.HIGH if alert.severity.rank >= Severity.HIGH.rank else Priority.NORMAL

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        """Refuse at import what could never work. Raises ConfigurationError."""
        super().__init_subclass__(**kwargs)
        cls.abstract = abstract
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        if problems := "; ".join(_problems_of(cls)):
            raise ConfigurationError(f"rule {cls.__module__}.{cls.__qualname__}: {problems}")

    abstract: ClassVar[bool] = True


def _problems_of(cls: Any) -> Iterator[str]:
    """What is wrong with a rule's class, with what would be right."""
    agent = getattr(cls, "agent", None)
    if agent is None and not cls.abstract:
        yield "it names no agent; write `agent = ...` (or `abstract=True` where others extend it)"
    elif agent is not None and not (isinstance(agent, type) and issubclass(agent, Agent)):
        yield f"agent is {agent!r}; write the agent's class"
    elif not is_name(cls.name):
        yield f"name is {cls.name!r}; use letters, digits and _ . -, 100 at most"
    else:
        yield from _wrong_options(cls)
        for method in _METHODS:
            if inspect.iscoroutinefunction(getattr(cls, method)):
                yield f"{method} is `async def`; write a plain `def`, work belongs into the agent"
        if agent is not None and (misfit := _misfit(cls, agent)):
            yield misfit


def _wrong_options(cls: Any) -> Iterator[str]:
    kinds = cls.kinds
    if not isinstance(kinds, AbstractSet) or not kinds or kinds - set(AlertKind):
        yield f"kinds is {kinds!r}; write a set of some of {', '.join(AlertKind)}"
    if not isinstance(cls.min_severity, Severity):
        yield f"min_severity is {cls.min_severity!r}; write Severity.MEDIUM, say"
    if not isinstance(cls.window, timedelta) or not timedelta(0) < cls.window <= LONGEST_WINDOW:
        yield f"window is {cls.window!r}; write a timedelta over 0, 30 days at most"
    elif not isinstance(cls.gather, timedelta) or not timedelta(0) <= cls.gather <= cls.window:
        yield f"gather is {cls.gather!r}; write a timedelta from 0 up to the window, {cls.window}"
    try:
        re.compile(cls.signature or "")
    except (re.error, TypeError) as error:
        yield f"signature {cls.signature!r} is no regular expression: {error}"


def _misfit(cls: type[Rule], agent: type[Agent[Any, Any]]) -> str | None:
    """What `input` gives and the agent cannot take, as far as the types tell."""
    given: Any = Alert
    if cls.input is not Rule.input:
        try:
            given = get_type_hints(cls.input).get("return")
        except (NameError, TypeError):
            return None
    if not (isinstance(given, type) and issubclass(given, BaseModel)):
        return None
    if not hasattr(agent, "input_type"):
        return f"agent {agent.__qualname__} has no input type; write Agent[Input, Output]"
    try:
        # Instances of the right class are taken as they are, so this asks for the class alone.
        agent.input_type.validate_python(given.model_construct())
    except ValidationError as error:
        wrong = [each for each in error.errors() if not each["loc"] and "_type" in each["type"]]
        if wrong:
            return (
                f"agent {agent.name!r} does not take {given.__name__}: {wrong[0]['msg']};"
                " write `def input(self, alert, investigation)` that gives what it takes"
            )
    return None


class RuleFailed(Rejected):
    """A rule raised, or answered what no rule may; the alert is set aside for it alone."""

    def __init__(
        self, rule: str, said: str, *, reason: DeadReason = DeadReason.RULE_FAILED
    ) -> None:
        self.rule = rule
        self.reason = reason
        super().__init__(f"rule {rule!r}: {clean_text(said, LONGEST_COMPLAINT)}")


class Step(StrEnum):
    """Why an investigation's task is made; each at most once."""

    FIRST = "first"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A rule wants this alert: by itself, or under a key."""

    rule: Rule
    key: str | None


def ask(rule: Rule, alert: Alert) -> Claim | None:
    """What a rule wants of an alert; None where it does not match. Raises RuleFailed."""
    if (
        alert.kind not in rule.kinds
        or alert.severity.rank < rule.min_severity.rank
        # Compiled once: re keeps the last few hundred patterns.
        or re.search(rule.signature or "", alert.signature, re.IGNORECASE) is None
    ):
        return None
    matches = _call(rule, "matches", alert)
    if not isinstance(matches, bool):
        raise _wrong_answer(rule, "matches", matches, "True or False")
    if not matches:
        return None
    key = _call(rule, "correlation", alert)
    if key is None:
        return Claim(rule=rule, key=None)
    if not isinstance(key, str) or not key:
        raise _wrong_answer(rule, "correlation", key, "a text with something in it, or None")
    return Claim(rule=rule, key=storable_key(key))


def task_for(
    rule: Rule,
    alert: Alert,
    *,
    investigation: Investigation | None = None,
    step: Step = Step.FIRST,
    run_at: datetime | None = None,
) -> Task:
    """The task of an alert by itself, or a step of an investigation; its id is derived.

    Raises RuleFailed, also where the agent refuses the input.
    """
    task_input = _call(rule, "input", alert, investigation)
    priority = _call(rule, "priority", alert)
    if not isinstance(priority, str) or priority not in set(Priority):
        raise _wrong_answer(rule, "priority", priority, f"one of {', '.join(Priority)}")
    told = {"rule": rule.name, "alert_id": alert.id}
    about = f"{rule.name}:{alert.id}"
    if investigation is not None:
        told["investigation_id"] = investigation.id
        about = f"{investigation.id}:{step}"
    try:
        return rule.agent.task(
            task_input,
            task_id=idempotent_id(tenant="alerts", agent=rule.agent.name, key=about),
            priority=Priority.HIGH if step is Step.CRITICAL else priority,
            run_at=run_at,
            metadata=told,
        )
    except Rejected as error:
        raise RuleFailed(rule.name, str(error), reason=error.reason) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # What is no JSON, say, or what the agent's own validators raise.
        raise _raised(rule, "input", error) from error


def storable_key(key: str) -> str:
    """The key as it is stored and compared: short, without control characters.

    What is cut keeps a digest of the whole, so that two long keys stay two.
    """
    key = _CONTROL.sub("\ufffd", clean_text(key, len(key)))
    if len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return f"{key[: LONGEST_KEY - len(digest) - 1]}…{digest}"


def _call(rule: Rule, method: str, *given: Any) -> Any:
    try:
        return getattr(rule, method)(*given)
    except KeyboardInterrupt:
        raise  # Ctrl-C at the command line
    except BaseException as error:
        raise _raised(rule, method, error) from error


def _raised(rule: Rule, method: str, error: BaseException) -> RuleFailed:
    logger.error(
        "rule %s: %s raised", rule.name, method, exc_info=error, extra={"event": "rule.raised"}
    )
    return RuleFailed(rule.name, f"{method}() raised {type(error).__name__}: {text_of(error)}")


def _wrong_answer(rule: Rule, method: str, answer: Any, wanted: str) -> RuleFailed:
    if inspect.iscoroutine(answer):
        answer.close()
    return RuleFailed(
        rule.name, f"{method}() answered a {type(answer).__name__}; what it may say is {wanted}"
    )
