"""The five streams: what each is for, who writes and who must read it, how long it is kept."""

from dataclasses import dataclass
from datetime import timedelta

from orchestrator.task import Priority

ORCHESTRATOR = "orchestrator"
RECORDER = "recorder"
AUDITOR = "auditor"
ALERT_HANDLER = "alert-handler"
CPS_ALERT_HANDLER = "cps-alert-handler"

# For readers without a group (relay, handle.get): a stream's acknowledged past, at most this much.
RETENTION_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream and its contract."""

    suffix: str
    purpose: str
    producers: str
    groups: tuple[str, ...]
    kept: timedelta  # after the last required acknowledgement; zero: deleted with it


ALERTS = Stream(
    suffix="alerts",
    purpose="security alerts",
    producers="normalisers in any language, the API",
    groups=(ALERT_HANDLER,),
    kept=timedelta(minutes=10),
)
CPS_ALERTS = Stream(
    suffix="cps:alerts",
    purpose="alerts of machines and things (CPS, IoT)",
    producers="the MQTT bridge, normalisers in any language",
    groups=(CPS_ALERT_HANDLER,),
    kept=timedelta(minutes=10),
)
TASKS = Stream(
    suffix="agent:tasks",
    purpose="work for agents",
    producers="the API, the scheduler, Python clients, any XADD",
    groups=(ORCHESTRATOR, RECORDER),
    kept=timedelta(0),
)
RESULTS = Stream(
    suffix="agent:results",
    purpose="what agents found, and each change of a task's state",
    producers="runners, and whoever else changes a state",
    groups=(RECORDER,),
    kept=timedelta(minutes=10),
)
AUDIT = Stream(
    suffix="audit",
    purpose="who did what, where no change of a task's state says it already",
    producers="every component",
    groups=(AUDITOR,),
    kept=timedelta(0),
)
STREAMS = (ALERTS, CPS_ALERTS, TASKS, RESULTS, AUDIT)


@dataclass(frozen=True, slots=True)
class Keys:
    """Every key in Redis, made from the prefix (`aurora`, or `{aurora}` on a cluster)."""

    prefix: str

    def of(self, stream: Stream) -> str:
        """The stream's key."""
        return f"{self.prefix}:{stream.suffix}"

    @property
    def tasks(self) -> str:
        return self.of(TASKS)

    @property
    def results(self) -> str:
        return self.of(RESULTS)

    @property
    def audit(self) -> str:
        return self.of(AUDIT)

    def lane(self, queue: str, priority: Priority) -> str:
        """`aurora:agent:tasks[:<queue>][:high|:low]`; the plain name is default and normal."""
        key = self.tasks if queue == "default" else f"{self.tasks}:{queue}"
        return key if priority is Priority.NORMAL else f"{key}:{priority.value}"

    def lanes(self, queue: str) -> tuple[str, str, str]:
        """A queue's three lanes: high, normal, low."""
        return (
            self.lane(queue, Priority.HIGH),
            self.lane(queue, Priority.NORMAL),
            self.lane(queue, Priority.LOW),
        )

    @property
    def queues(self) -> str:
        """A set: the queues other than the default that somebody publishes to or reads."""
        return f"{self.prefix}:queues"

    @property
    def delayed(self) -> str:
        """A sorted set: task id by the millisecond at which it is due."""
        return f"{self.prefix}:agent:delayed"

    @property
    def delayed_bodies(self) -> str:
        """A hash: task id -> the message to publish when it is due."""
        return f"{self.prefix}:agent:delayed:bodies"

    def spent(self, task_id: str) -> str:
        """A hash: what a task with a budget has spent on models, over its attempts."""
        return f"{self.prefix}:spent:{task_id}"

    def marker(self, task_id: str) -> str:
        """`<attempt>:<digest>:<end>` of one task: the arbiter of its end."""
        return f"{self.prefix}:task:{task_id}"

    def gate(self, provider: str) -> str:
        """A hash: what is known of this provider's limits, and who waits."""
        return f"{self.prefix}:gate:{provider}"

    @property
    def gates(self) -> str:
        """A set: the providers whose gate has ever closed."""
        return f"{self.prefix}:gates"
