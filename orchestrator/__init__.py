"""Aurora runs AI agents the way Celery runs tasks.

The journey of a task through the files:

 1. `agent.py`                    `await Triage.delay(alert)` validates the input and makes a `Task`
                                  (`task.py`). The API, the scheduler, the alert handlers and any
                                  `XADD` are other doors to step 3.
 2. `runtime/submitter.py`        accepts it: the row first and then the entry (durability
                                  `database`), or the entry alone (`stream`).
 3. `streams/publisher.py`        one XADD to `aurora:agent:tasks`; never a MAXLEN.
 4. `streams/consumer.py`         the group "orchestrator": reads as many as there are free slots,
                                  claims from the dead, dead-letters what cannot be read.
 5. `runtime/dispatcher.py`       finds the agent (`registry.py`), asks Redis whether the task has
                                  ended already, gives it to a runner.
 6. `runtime/runner.py`           runs one attempt under its timeout; whatever happens becomes an
                                  `Outcome` (`outcome.py`). Knows neither Redis nor Postgres.
    `runtime/isolated.py`         the same in a child process of its own (`runtime/child.py`), for
                                  agents that ask for it and for tasks whose workers died twice.
    `models/metered.py`           where it asks a language model (`ctx.ask`): the task's budget, the
                                  provider's gate, and each call told before its answer is seen.
 7. `runtime/lease.py`            meanwhile a thread of its own renews the pending entry.
 8. `streams/scripts/finish.lua`  result event + end marker + acknowledgement, in one step, and only
                                  for the owner.
 9. `services/recorder.py`        tasks and results into Postgres, with the audit of each change in
                                  the same transaction; acknowledged after the commit.
10. `handle.py`                   `await handle.get()` has had the answer since step 8.
 ↺  `services/reconciler.py`      finds rows whose entry Redis has lost, and publishes them again.

Two facts carry the design. The stream's pending list is the lease; Postgres is the record.
Execution is at least once; the result is exactly once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.agent import Agent
    from orchestrator.alert import Alert, Severity
    from orchestrator.app import connect
    from orchestrator.budget import Budget
    from orchestrator.context import RunContext
    from orchestrator.cron import crontab
    from orchestrator.errors import OrchestratorError, TaskUnsuccessful
    from orchestrator.handle import Handle
    from orchestrator.retry import GiveUp, Retry, RetryLater
    from orchestrator.rule import Investigation, Rule
    from orchestrator.task import Durability, Priority, TaskState

# Each name is imported when it is first asked for: `aurora --help` does not pay for pydantic, nor
# whoever only writes agents for the clients of Redis and Postgres.
_HOMES = {
    "Agent": "agent",
    "Alert": "alert",
    "Budget": "budget",
    "Durability": "task",
    "GiveUp": "retry",
    "Handle": "handle",
    "Investigation": "rule",
    "OrchestratorError": "errors",
    "Priority": "task",
    "Retry": "retry",
    "RetryLater": "retry",
    "Rule": "rule",
    "RunContext": "context",
    "Severity": "alert",
    "TaskState": "task",
    "TaskUnsuccessful": "errors",
    "connect": "app",
    "crontab": "cron",
}

__all__ = [
    "Agent",
    "Alert",
    "Budget",
    "Durability",
    "GiveUp",
    "Handle",
    "Investigation",
    "OrchestratorError",
    "Priority",
    "Retry",
    "RetryLater",
    "Rule",
    "RunContext",
    "Severity",
    "TaskState",
    "TaskUnsuccessful",
    "connect",
    "crontab",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    return getattr(import_module(f"orchestrator.{_HOMES[name]}"), name)
