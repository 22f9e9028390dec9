"""Every error this package raises, as one tree; each says what would have been right.

OrchestratorError
├── ConfigurationError          wrong before anything ran: settings, agents, servers
│   ├── UnknownSetting
│   ├── AgentsNotImportable
│   ├── DuplicateAgent
│   ├── DuplicateRule
│   ├── InvalidSchedule
│   ├── InvalidMapping          of the MQTT bridge: which field, and what would be right
│   ├── UnsuitableServer        eviction policy, version, cluster without a hash tag
│   └── SchemaNotAtHead
├── NotConnected                delay() outside `async with orchestrator.connect()`
├── Rejected                    a message or call that can never succeed as it is
│   ├── MalformedMessage
│   ├── PayloadTooLarge
│   ├── UnknownAgent
│   ├── InvalidInput
│   └── TaskIdConflict
├── TaskNotFound
├── TaskUnsuccessful            handle.get() of a task that ended otherwise than succeeded
├── Unavailable                 a server does not answer; trying later is right
│   ├── BrokerRefused           the MQTT broker answers, and will not have us as we are
│   └── TookTooLong             a statement was given up; a narrower question may be answered
└── Overloaded                  we refuse so that nothing grows without bound; says when to return
"""

from difflib import get_close_matches
from enum import StrEnum


class DeadReason(StrEnum):
    """Why a message was set aside; the `reason` of a dead letter."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNKNOWN_AGENT = "unknown_agent"
    INVALID_INPUT = "invalid_input"
    TASK_ID_CONFLICT = "task_id_conflict"
    CRASHED = "crashed"
    UNRECORDABLE = "unrecordable"
    LOST = "lost"
    RULE_FAILED = "rule_failed"
    NO_RULE = "no_rule"


class OrchestratorError(Exception):
    """The root: `except OrchestratorError` catches whatever this package raises."""


class ConfigurationError(OrchestratorError):
    """Something is wrong before any task ran."""


class UnknownSetting(ConfigurationError):
    """A variable or key starts like one of ours and is none."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        self.name = name
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
        super().__init__(f"unknown setting {name}; {hint}")


class AgentsNotImportable(ConfigurationError):
    """The agents' folder or module does not import."""


class DuplicateAgent(ConfigurationError):
    """Two agent classes claim one name."""

    def __init__(self, name: str, first: str, second: str) -> None:
        self.name = name
        super().__init__(f"two agents are named {name!r}: {first} and {second}; rename one")


class DuplicateRule(ConfigurationError):
    """Two rules for alerts claim one name."""

    def __init__(self, name: str, first: str, second: str) -> None:
        self.name = name
        super().__init__(
            f"two rules are named {name!r}: {first} and {second}; give one another `name`"
        )


class InvalidSchedule(ConfigurationError):
    """A cron line or time zone cannot be read."""


class InvalidMapping(ConfigurationError):
    """The bridge's file of mappings cannot be used; says where and what would be right."""


class UnsuitableServer(ConfigurationError):
    """The server would break a promise as it is configured."""


class SchemaNotAtHead(ConfigurationError):
    """The database has another schema than this version needs."""

    def __init__(self, current: str | None, head: str) -> None:
        self.current = current
        self.head = head
        super().__init__(
            f"the database schema is at {current or 'nothing'}, this version needs {head};"
            " run: aurora db upgrade"
        )


class NotConnected(OrchestratorError):
    """Nothing to submit through."""

    def __init__(self) -> None:
        super().__init__(
            "not connected; write: async with orchestrator.connect(): ... around this call"
        )


class Rejected(OrchestratorError):
    """Can never succeed as it is; `reason` is what a dead letter would carry."""

    reason: DeadReason = DeadReason.MALFORMED


class MalformedMessage(Rejected):
    """A stream entry that is not what design section 2 asks for."""


class PayloadTooLarge(Rejected):
    """Over the size cap; larger inputs belong in a store, with a reference here."""

    reason = DeadReason.TOO_LARGE

    def __init__(self, size: int, limit: int, *, setting: str = "AURORA_MAX_PAYLOAD") -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            f"{size} bytes is over the limit of {limit} ({setting});"
            " store it elsewhere and pass a reference"
        )


class UnknownAgent(Rejected):
    """No agent class is registered under this name."""

    reason = DeadReason.UNKNOWN_AGENT

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        self.name = name
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"no agent named {name!r}{hint} registered: {', '.join(known) or 'none'}")


class InvalidInput(Rejected):
    """The input does not validate against the agent's input type; names the fields."""

    reason = DeadReason.INVALID_INPUT

    def __init__(self, agent: str, problems: tuple[tuple[str, str], ...]) -> None:
        self.agent = agent
        self.problems = problems  # (JSON pointer, what is wrong) each
        listed = "; ".join(f"{pointer or '/'}: {message}" for pointer, message in problems)
        super().__init__(f"input of agent {agent!r} is not valid: {listed}")


class TaskIdConflict(Rejected):
    """One task id, two contents."""

    reason = DeadReason.TASK_ID_CONFLICT

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(
            f"task {task_id} exists with another agent or input; a new task needs a new id"
            " (or another idempotency key)"
        )


class TaskNotFound(OrchestratorError):
    """No record of such a task."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(f"no task {task_id}")


class TaskUnsuccessful(OrchestratorError):
    """The task ended, and not with a result."""

    def __init__(self, task_id: str, state: str, error: str | None) -> None:
        self.task_id = task_id
        self.state = state
        self.error = error
        super().__init__(f"task {task_id} {state}" + (f": {error}" if error else ""))


class Unavailable(OrchestratorError):
    """A server does not answer now; the same call may succeed later."""

    def __init__(self, what: str, why: str, *, retry_after: int = 5) -> None:
        self.what = what
        self.retry_after = retry_after  # seconds
        super().__init__(f"{what} is not available: {why}")


class BrokerRefused(Unavailable):
    """An MQTT broker that does not let us in, or that we do not trust; somebody must put it right.

    No ConfigurationError: a broker may be wrong for an hour, and its neighbours here go on.
    """

    def __init__(self, why: str) -> None:
        super().__init__("the MQTT broker", why, retry_after=30)
        self.args = (why,)


class TookTooLong(Unavailable):
    """A statement was given up at its timeout; a narrower question may be answered."""


class Overloaded(OrchestratorError):
    """Refused so that nothing grows without bound."""

    def __init__(self, why: str, *, retry_after: int) -> None:
        self.retry_after = retry_after  # seconds
        super().__init__(f"refused for now: {why}; try again in {retry_after} s")


def text_of(error: BaseException) -> str:
    """What somebody else's exception says of itself; some fail at that, too."""
    try:
        return str(error)
    except BaseException as failed:  # noqa: BLE001 - theirs, whatever it is
        return f"(no text: its __str__ raised {type(failed).__name__})"
