"""The class that users write: `class Triage(Agent[Alert, Verdict])` with an `async def run`."""

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from orchestrator.budget import Budget
from orchestrator.client import current_submitter
from orchestrator.context import RunContext, current_run
from orchestrator.cron import Crontab
from orchestrator.errors import ConfigurationError, InvalidInput
from orchestrator.handle import Handle
from orchestrator.retry import Retry
from orchestrator.task import Durability, Priority, Task, idempotent_id, is_name, new_id

# What an error names of an input that is wrong throughout; text is cut at so many characters.
PROBLEMS, LONGEST = 20, 500

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


class Isolation(StrEnum):
    """Where an attempt runs: among the others in the worker, or in a child process of its own."""

    TASK = "task"
    PROCESS = "process"


class Agent(Generic[InputT, OutputT]):
    """Does one kind of work: typed in, typed out, found by its `name`.

    A worker makes one instance per process and calls `run` for each attempt, many at a time, so
    an instance must not keep a task's state. A plain `def run` runs in a thread.

    With `isolation = "process"` each attempt has a fresh interpreter for itself: code that holds
    the interpreter lock, leaks or crashes ends its own attempt and no other. The limits hold there
    only; None is no limit. A task that two workers died with, or one in the midst of its code, runs
    so whatever its agent asks for, so agents belong into modules that can be imported.
    """

    name: ClassVar[str]  # what stands in messages; default: the class name in snake_case
    queue: ClassVar[str] = "default"
    priority: ClassVar[Priority] = Priority.NORMAL
    retry: ClassVar[Retry] = Retry()
    timeout: ClassVar[timedelta] = timedelta(minutes=10)  # of one attempt; then it is retried
    concurrency: ClassVar[int | None] = None  # at a time in one worker; None: the worker's
    budget: ClassVar[Budget | None] = None  # of one task on models, over all its attempts
    isolation: ClassVar[Isolation | str] = Isolation.TASK
    memory_limit: ClassVar[int | None] = 2 * 1024**3  # bytes of address space of the process
    # Of computing, not of waiting: who computes longer than half the default timeout is in a loop.
    cpu_limit: ClassVar[timedelta | None] = timedelta(minutes=5)
    schedules: ClassVar[Sequence[Crontab]] = ()

    input_type: ClassVar[TypeAdapter[Any]]
    output_type: ClassVar[TypeAdapter[Any]]

    def run(self, task_input: InputT, ctx: RunContext) -> Any:
        """Do the work and return an OutputT; written as `async def`, or as a plain `def`."""
        raise NotImplementedError(f"{self.name} has no run: write {_RUN}")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read the types off the class line, so that a mistake shows at import."""
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        if not is_name(cls.name):
            raise ConfigurationError(
                f"agent name {cls.name!r} of {cls.__qualname__}: use letters, digits and _ . -"
            )
        if cls.queue in list(Priority):
            raise ConfigurationError(
                f"agent {cls.name!r}: {cls.queue!r} is a priority, not a queue; set `priority`"
            )
        for setting, is_right, what in _SETTINGS:
            if not is_right(given := getattr(cls, setting)):
                raise ConfigurationError(f"agent {cls.name!r}: {setting} is {what}, not {given!r}")
        types = _declared(cls) if "__orig_bases__" in cls.__dict__ else ()
        if types and not any(map(_left_open, types)):
            cls.input_type, cls.output_type = (TypeAdapter(each) for each in types)
        _check_run(cls)

    @classmethod
    async def delay(cls, task_input: InputT) -> Handle[OutputT]:
        """Submit one task with this agent's defaults. Errors as of `apply_async`."""
        return await cls.apply_async(task_input)

    @classmethod
    async def apply_async(
        cls,
        task_input: InputT,
        *,
        countdown: float | timedelta | None = None,
        eta: datetime | None = None,
        expires: float | timedelta | datetime | None = None,
        queue: str | None = None,
        priority: Priority | str | None = None,
        idempotency_key: str | None = None,
        task_id: str | None = None,
        tenant: str = "default",
        metadata: dict[str, Any] | None = None,
        budget: Budget | None = None,
        durability: Durability | str | None = None,
        session: Any = None,
    ) -> Handle[OutputT]:
        """Submit one task; Celery's words, times in seconds where a number is given.

        `budget`: lower limits than the agent's own on what the task may spend on models.
        `session`: a SQLAlchemy AsyncSession; the task is published if and only if it commits.
        Raises InvalidInput, TaskIdConflict, PayloadTooLarge, NotConnected, Unavailable.
        """
        submitter = current_submitter()
        now = datetime.now(UTC)
        task = cls.task(
            task_input,
            run_at=_moment(eta if eta is not None else countdown, now),
            expires_at=_moment(expires, now),
            queue=queue,
            priority=priority,
            idempotency_key=idempotency_key,
            task_id=task_id,
            tenant=tenant,
            metadata=metadata,
            budget=budget,
        )
        receipt = await submitter.submit(
            task, durability=Durability(durability) if durability else None, session=session
        )
        return Handle(receipt, cls.output_type, submitter)

    @classmethod
    async def map(
        cls, inputs: Iterable[InputT], *, durability: Durability | str | None = None
    ) -> list[Handle[OutputT]]:
        """Submit one task for each input, in bulk."""
        submitter = current_submitter()
        receipts = await submitter.submit_many(
            [cls.task(each) for each in inputs],
            durability=Durability(durability) if durability else None,
        )
        return [Handle(receipt, cls.output_type, submitter) for receipt in receipts]

    @classmethod
    def task(
        cls,
        task_input: InputT,
        *,
        task_id: str | None = None,
        idempotency_key: str | None = None,
        queue: str | None = None,
        priority: Priority | str | None = None,
        tenant: str = "default",
        run_at: datetime | None = None,
        expires_at: datetime | None = None,
        metadata: dict[str, Any] | None = None,
        budget: Budget | None = None,
    ) -> Task:
        """The task that this input makes, not yet submitted. Raises InvalidInput."""
        if task_id is None and idempotency_key is not None:
            task_id = idempotent_id(tenant=tenant, agent=cls.name, key=idempotency_key)
        parent = current_run()
        return Task(
            task_id=task_id or new_id(),
            agent=cls.name,
            input=cls.dump_input(task_input),
            queue=queue or cls.queue,
            priority=Priority(priority or cls.priority),
            idempotency_key=idempotency_key,
            run_at=run_at,
            expires_at=expires_at,
            parent_id=parent.task_id if parent else None,
            root_id=(parent.task.root_id or parent.task_id) if parent else None,
            tenant=tenant,
            metadata=metadata or {},
            budget=budget,
        )

    @classmethod
    def dump_input(cls, task_input: InputT) -> dict[str, Any]:
        """The input as the JSON object that a message carries. Raises InvalidInput."""
        checked = cls.load_input(task_input)
        # By way of the text, so that it is what a reader will find: a float that is infinite here
        # is null in the message, and two digests of one task would be a conflict.
        found = from_json(cls.input_type.dump_json(checked))
        if not isinstance(found, dict):
            raise InvalidInput(
                cls.name, (("", f"a JSON object is needed, not {type(found).__name__}"),)
            )
        return found

    @classmethod
    def load_input(cls, raw: Any) -> InputT:
        """Validate what a message brought. Raises InvalidInput, which names the fields."""
        try:
            # Past the adapter's own method: the way there costs nearly as much again.
            loaded: InputT = cls.input_type.validator.validate_python(raw)
        except ValidationError as error:
            raise InvalidInput(cls.name, tuple(_problems(error))) from error
        return loaded


def _declared(cls: type[Any]) -> tuple[Any, ...]:
    """The types that `Agent[...]` was given, by way of generic bases, too; () where it was not."""
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin, given = get_origin(base) or base, get_args(base)
        if origin is Agent:
            return given
        if isinstance(origin, type) and issubclass(origin, Agent) and (types := _declared(origin)):
            filled = dict(zip(origin.__parameters__, given, strict=False))  # type: ignore[attr-defined]
            return tuple(_filled(each, filled) for each in types)
    return ()


def _filled(declared: Any, given: Mapping[Any, Any]) -> Any:
    if isinstance(declared, TypeVar):
        return given.get(declared, declared)
    left = _left_open(declared)
    return declared[tuple(given.get(each, each) for each in left)] if left else declared


def _left_open(declared: Any) -> Sequence[Any]:
    """The type variables in it."""
    if isinstance(declared, TypeVar):
        return (declared,)
    if isinstance(declared, type):  # a generic model of pydantic's is a class with any arguments
        told = getattr(declared, "__pydantic_generic_metadata__", {})
        return told.get("parameters", ()) if told.get("origin") else ()
    return getattr(declared, "__parameters__", ())


_RUN = "`async def run(self, task_input, ctx)`"


def _check_run(cls: type[Agent[Any, Any]]) -> None:
    run = inspect.getattr_static(cls, "run")
    if not callable(cls.run):
        raise ConfigurationError(f"agent {cls.name!r}: run is {_RUN}, not {run!r}")
    if inspect.isasyncgenfunction(run) or inspect.isgeneratorfunction(run):
        raise ConfigurationError(f"agent {cls.name!r}: run returns its output, it does not yield")
    if inspect.isfunction(run):
        try:
            # As it is called: what a wrapper adds or takes away is the wrapper's.
            inspect.signature(run, follow_wrapped=False).bind("self", "task_input", "ctx")
        except TypeError as error:
            raise ConfigurationError(f"agent {cls.name!r}: run is {_RUN}; {error}") from error


def _is_time(given: Any) -> bool:
    return isinstance(given, timedelta) and timedelta(0) < given <= timedelta(days=365)


def _is_count(given: Any) -> bool:
    return type(given) is int and given > 0


def _are_schedules(given: Any) -> bool:
    return isinstance(given, Collection) and all(isinstance(each, Crontab) for each in given)


# What a class may set: a mistake shows at import, and not when its first task fails.
_SETTINGS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("queue", is_name, "a name of letters, digits and _ . -"),
    ("priority", lambda it: it in list(Priority), " or ".join(Priority)),
    ("retry", lambda it: isinstance(it, Retry), "a Retry, such as Retry(max_attempts=3)"),
    ("timeout", _is_time, "a timedelta, such as timedelta(minutes=10), a year at most"),
    ("concurrency", lambda it: it is None or _is_count(it), "a whole number from 1, or None"),
    ("budget", lambda it: it is None or isinstance(it, Budget), "a Budget, or None"),
    ("isolation", lambda it: it in list(Isolation), " or ".join(Isolation)),
    ("memory_limit", lambda it: it is None or _is_count(it), "a number of bytes, or None"),
    ("cpu_limit", lambda it: it is None or _is_time(it), "a timedelta, a year at most, or None"),
    ("schedules", _are_schedules, "a list of Crontab"),
)


def _problems(error: ValidationError) -> Iterator[tuple[str, str]]:
    """JSON pointer and what is wrong there, of the first few."""
    for each in error.errors(include_url=False, include_input=False)[:PROBLEMS]:
        yield "".join(f"/{part}" for part in each["loc"])[:LONGEST], each["msg"][:LONGEST]
    if (more := error.error_count() - PROBLEMS) > 0:
        yield "", f"and {more} more"


def _moment(given: float | timedelta | datetime | None, now: datetime) -> datetime | None:
    match given:
        case None:
            return None
        case datetime():
            # A naive time means UTC, as on the wire.
            return given if given.tzinfo else given.replace(tzinfo=UTC)
        case timedelta():
            return now + given
        case _:
            return now + timedelta(seconds=given)
