"""One attempt: whatever the agent does becomes an Outcome."""

import asyncio
import functools
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator import Agent, GiveUp, Retry, RetryLater, RunContext
from orchestrator.context import RunClock
from orchestrator.errors import ConfigurationError, DeadReason, InvalidInput
from orchestrator.outcome import Completed, Failed, Retrying, SetAside
from orchestrator.runtime.runner import Runner
from orchestrator.testing import run_agent

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


class Word(BaseModel):
    word: str


class Base(Agent[Word, Word]):
    retry = Retry(max_attempts=2, jitter=lambda: 1.0)
    timeout = timedelta(milliseconds=50)

    async def run(self, task_input: Word, ctx: RunContext) -> Word:
        return await self.act(task_input, ctx)

    async def act(self, task_input: Word, ctx: RunContext) -> Word:
        await ctx.progress(done=1)
        found = await ctx.query("SELECT 1")
        return Word(word=task_input.word.upper() + str(len(found)))


def agent_that(act):
    return type("That", (Base,), {"act": act, "name": "that"})()


async def test_it_completes():
    """Output validated and serialised, progress heard, rows read."""
    ran = await run_agent(Base(), Word(word="a"), rows=[{"x": 1}])
    assert isinstance(ran.outcome, Completed)
    assert ran.output == Word(word="A1")
    assert ran.progress == ({"done": 1},)


class Lazy(BaseModel):
    """Its validator is made when it is first used."""

    model_config = ConfigDict(defer_build=True)

    n: int


class Ahead(BaseModel):
    inner: "Behind"


class Lazily(Agent[Lazy, Ahead]):
    async def run(self, task_input: Lazy, ctx: RunContext) -> Ahead:
        return Ahead(inner=Behind(n=task_input.n))


class Behind(BaseModel):
    n: int


async def test_types_may_be_complete_later_than_their_agent():
    """We call their validators and serialisers ourselves, past what completes them."""
    ran = await run_agent(Lazily(), {"n": 1})

    assert ran.outcome == Completed(b'{"inner":{"n":1}}')


async def test_an_error_is_retried_and_then_fails():
    """By the agent's policy; the fault keeps type, message and the line."""

    async def act(self, task_input, ctx):
        raise ValueError("no such host")

    first = (await run_agent(agent_that(act), Word(word="a"))).outcome
    last = (await run_agent(agent_that(act), Word(word="a"), attempt=2)).outcome
    assert isinstance(first, Retrying)
    assert first.delay == timedelta(seconds=1)
    assert isinstance(last, Failed)
    assert (last.fault.type, last.fault.message) == ("ValueError", "no such host")
    assert "no such host" in (last.fault.traceback or "")


async def test_a_timeout_is_told_as_one():
    """Not done in time: retried, and the fault names the setting."""

    async def act(self, task_input, ctx):
        await asyncio.sleep(10)

    outcome = (await run_agent(agent_that(act), Word(word="a"))).outcome
    assert isinstance(outcome, Retrying)
    assert outcome.fault.type == "Timeout"
    assert "that.timeout" in outcome.fault.message


async def test_the_time_of_an_attempt_counts_from_its_start():
    """What computes past its timeout, and waits only then, is cancelled as soon as it waits."""

    async def act(self, task_input, ctx):
        time.sleep(0.06)  # noqa: ASYNC251 - the loop is what it holds
        await asyncio.sleep(10)

    began = time.monotonic()
    outcome = (await run_agent(agent_that(act), Word(word="a"))).outcome

    assert isinstance(outcome, Retrying)
    assert outcome.fault.type == "Timeout"
    assert time.monotonic() - began < 5


async def test_an_extension_holds_for_a_limit_that_is_not_set_yet():
    """Time that is given before the run first waits is not lost."""
    clock = RunClock()
    clock.start(1.0)
    clock.extend(60.0)

    async with clock.running() as limit:
        assert limit.when() - asyncio.get_running_loop().time() > 30
    assert not clock.has_run_out


async def test_the_agents_own_timeout_error_is_its_own():
    """A TimeoutError that agent code raises is not taken for ours."""

    async def act(self, task_input, ctx):
        raise TimeoutError("the lookup took too long")

    outcome = (await run_agent(agent_that(act), Word(word="a"))).outcome
    assert isinstance(outcome, Retrying)
    assert outcome.fault.type == "TimeoutError"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(GiveUp("hopeless"), Failed), (RetryLater(after=timedelta(seconds=7)), Retrying)],
)
async def test_the_agent_decides(raised, expected):
    """GiveUp fails at once; RetryLater waits as long as it says."""

    async def act(self, task_input, ctx):
        raise raised

    outcome = (await run_agent(agent_that(act), Word(word="a"))).outcome
    assert isinstance(outcome, expected)
    if isinstance(outcome, Retrying):
        assert outcome.delay == timedelta(seconds=7)


class Odd(BaseException):
    """What nobody expects who catches Exception."""


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, Odd])
async def test_whatever_is_raised_goes_by_the_agents_policy(raised):
    """F31: in a coroutine the first two would end the loop and cancel the neighbours."""

    async def act(self, task_input, ctx):
        raise raised

    outcome = (await run_agent(agent_that(act), Word(word="a"))).outcome
    assert isinstance(outcome, Retrying)
    assert outcome.fault.type == raised.__name__


class Unsayable(Exception):
    def __str__(self) -> str:
        return self.never_set


async def test_an_exception_that_cannot_say_what_it_is_goes_by_the_policy_too():
    """Its own __str__ raises: still a failed attempt, not a fault of the worker's."""

    async def act(self, task_input, ctx):
        raise Unsayable

    outcome = (await run_agent(agent_that(act), Word(word="a"))).outcome
    assert isinstance(outcome, Retrying)
    assert outcome.fault.type == "Unsayable"
    assert outcome.fault.message == "(no text: its __str__ raised AttributeError)"


class Proxy(Exception):
    """As an API's error may be: whatever it is asked for is looked up in the answer."""

    def __getattr__(self, name: str) -> str:
        return {}[name]


class Later(RetryLater):
    after = 7

    def __init__(self) -> None:
        """Without the base's."""


async def test_what_an_exception_or_a_policy_of_theirs_does_wrong_stays_theirs():
    """The first error is told in each case, and no attempt is a fault of the worker's."""

    def ends(raised, **policy):
        async def act(self, task_input, ctx):
            raise raised

        agent = type("That", (Base,), {"act": act, "name": "that", **policy})()
        return run_agent(agent, Word(word="a"))

    proxy = (await ends(Proxy("no"))).outcome
    assert isinstance(proxy, Retrying)
    assert (proxy.fault.type, proxy.fault.message) == ("Proxy", "no")
    assert "raise raised" in (proxy.fault.traceback or "")
    later = (await ends(Later())).outcome
    assert isinstance(later, Retrying)
    assert later.delay == timedelta(seconds=7)
    for raised, policy in (
        (ValueError("first"), {"retry": Retry(jitter=lambda: 1 / 0)}),
        (RetryLater("first", after="soon"), {}),
    ):
        found = (await ends(raised, **policy)).outcome
        assert isinstance(found, Failed)
        assert found.fault.message.startswith("first; and its retry raised ")


def test_a_delay_is_the_ceiling_at_most_whatever_the_attempt():
    """A base of hours and many attempts is past what a timedelta holds."""
    policy = Retry(max_attempts=5_000, base=timedelta(hours=6), jitter=lambda: 1.0)
    assert policy.delay_after(4_000) == policy.ceiling
    assert Retry(jitter=lambda: 1.0).delay_after(2) == timedelta(seconds=2)


class Plain(Agent[Word, Word]):
    timeout = timedelta(seconds=20)

    def run(self, task_input: Word, ctx: RunContext) -> Word:
        return next(word for word in [task_input] if word.word == "another")


async def test_next_without_a_default_ends_a_plain_function_at_once():
    """A future takes no StopIteration: the attempt would hold its slot until its timeout."""
    began = time.monotonic()
    outcome = (await run_agent(Plain(), Word(word="a"))).outcome
    assert isinstance(outcome, Retrying)
    assert outcome.fault.message == "run raised StopIteration"
    assert "another" in (outcome.fault.traceback or "")
    assert time.monotonic() - began < 10  # half of its timeout


async def test_an_output_of_the_wrong_type_is_a_fault():
    """Typed out as well as in."""

    async def act(self, task_input, ctx):
        return {"word": ["not", "a", "string"]}

    outcome = (await run_agent(agent_that(act), Word(word="a"))).outcome
    assert isinstance(outcome, Retrying)
    assert "output type refuses" in outcome.fault.message


async def test_what_a_run_gives_wrongly_to_another_agent_is_its_own_error():
    """Its own input was fine: no dead letter about a field that it does not have."""

    async def act(self, task_input, ctx):
        Lazily.task({"n": "no number"})

    outcome = (await run_agent(agent_that(act), Word(word="a"))).outcome
    assert isinstance(outcome, Retrying)
    assert outcome.fault.type == "InvalidInput"
    assert "'lazily' is not valid: /n" in outcome.fault.message


async def test_invalid_input_is_set_aside_and_names_the_field():
    """P10, at the runner's door; the caller's is the first."""
    with pytest.raises(InvalidInput, match="/word"):
        Base.load_input({"word": 1})

    task = Base.task(Word(word="a")).model_copy(update={"input": {"word": 1}})
    context = RunContext(
        task=task, attempt=1, worker="w", deadline=datetime.now(UTC), emit=None, read=None
    )
    with ThreadPoolExecutor(max_workers=1) as threads:
        outcome = await Runner(threads, max_output=100).run(Base(), context)
    assert isinstance(outcome, SetAside)
    assert outcome.reason is DeadReason.INVALID_INPUT
    assert "/word" in outcome.detail


@pytest.mark.parametrize(
    ("setting", "given", "right"),
    [
        ("isolation", "thread", "isolation is task or process, not 'thread'"),
        ("priority", ["high"], r"priority is high or normal or low, not \['high'\]"),
        ("retry", 3, r"retry is a Retry, such as Retry\(max_attempts=3\), not 3"),
        ("queue", "no spaces", "queue is a name of letters, digits and _ . -, not 'no spaces'"),
        ("queue", None, "queue is a name of letters"),
        ("timeout", 30, r"timeout is a timedelta, such as .*, a year at most, not 30"),
        ("timeout", timedelta(0), "timeout is a timedelta"),
        ("timeout", timedelta.max, "timeout is a timedelta, such as .*, a year at most"),
        ("concurrency", "5", "concurrency is a whole number from 1, or None, not '5'"),
        ("concurrency", 0, "concurrency is a whole number from 1"),
        ("budget", {"tokens": 5}, "budget is a Budget, or None, not"),
        ("memory_limit", "2G", "memory_limit is a number of bytes, or None, not '2G'"),
        ("concurrency", True, "concurrency is a whole number from 1"),
        ("cpu_limit", 300, "cpu_limit is a timedelta, a year at most, or None, not 300"),
        ("schedules", "* * * * *", r"schedules is a list of Crontab, not '\* "),
        ("schedules", None, "schedules is a list of Crontab, not None"),
    ],
)
def test_a_setting_of_the_wrong_kind_shows_at_import(setting, given, right):
    """Otherwise each task of it would fail, and of `retry` only when it is needed."""
    with pytest.raises(ConfigurationError, match=f"agent 'wrong': {right}"):
        type("Wrong", (Base,), {"name": "wrong", setting: given})


async def _without_ctx(self, task_input):
    return task_input


async def _yields(self, task_input, ctx):
    yield task_input


def _yields_plainly(self, task_input, ctx):
    yield task_input


@pytest.mark.parametrize(
    ("run", "right"),
    [
        (_without_ctx, r"run is `async def run\(self, task_input, ctx\)`; too many positional"),
        (_yields, "run returns its output, it does not yield"),
        (_yields_plainly, "run returns its output, it does not yield"),
        (None, "run is `async def .*, not None"),
    ],
)
def test_so_does_a_run_that_cannot_be_called(run, right):
    """Otherwise each attempt would fail by it, and be retried. Also where it is inherited."""
    with pytest.raises(ConfigurationError, match=f"agent 'wrong': {right}"):
        type("Wrong", (type("Mixin", (), {"run": run}), Base), {"name": "wrong"})


async def test_a_run_is_called_as_its_wrapper_says():
    """One that injects what the inner function wants takes no more than any other."""

    def with_greeting(run):
        @functools.wraps(run)
        async def wrapped(self, task_input, ctx):
            return await run(self, task_input, ctx, "hello ")

        return wrapped

    class Greets(Agent[Word, Word]):
        @with_greeting
        async def run(self, task_input: Word, ctx: RunContext, greeting: str) -> Word:
            return Word(word=greeting + task_input.word)

    assert (await run_agent(Greets(), Word(word="you"))).output == Word(word="hello you")


def test_a_generic_base_has_no_types_yet():
    """Its children have, and theirs."""

    class Echo(Agent[InputT, InputT]):
        async def run(self, task_input: InputT, ctx: RunContext) -> InputT:
            return task_input

    class EchoWord(Echo[Word]):
        pass

    class EchoAgain(EchoWord):
        pass

    assert not hasattr(Echo, "input_type")
    assert EchoAgain.input_type.validate_python({"word": "a"}) == Word(word="a")


def test_type_variables_are_filled_wherever_they_stand():
    """In a container, in a model, by way of a base that says nothing itself, or says more."""

    class Envelope(BaseModel, Generic[InputT]):
        content: InputT

    class Boxes(Agent[dict[str, InputT], Envelope[OutputT]], Generic[InputT, OutputT]):
        pass

    class Marked(Agent, Generic[InputT]):
        async def run(self, task_input, ctx):
            return task_input

    class More(Boxes, Generic[InputT, OutputT]):
        pass

    class Whole(Boxes[int, str]):
        pass

    class Last(Marked[int], More[int, str]):
        pass

    assert not hasattr(Boxes, "input_type")
    for each in (Whole, Last):
        assert each.input_type.validate_python({"a": 1}) == {"a": 1}
        with pytest.raises(ValidationError):
            each.input_type.validate_python({"a": "not an int"})
        with pytest.raises(ValidationError):
            each.output_type.validate_python({"content": 1})


def test_a_generic_base_may_name_its_types_in_any_order():
    """They are resolved by name, not by place."""

    class Base(Agent[InputT, OutputT], Generic[OutputT, InputT]):
        async def run(self, task_input: InputT, ctx: RunContext) -> OutputT:
            raise NotImplementedError

    class Half(Base[int, InputT]):
        pass

    class Whole(Half[str]):
        pass

    assert (Whole.input_type.validate_python("a"), Whole.output_type.validate_python(1)) == ("a", 1)
    with pytest.raises(ValidationError):
        Whole.input_type.validate_python(1)


class Unfinished(Agent[Word, Word]):
    pass


class Forgot(Agent[Word, Word]):
    def run(self, task_input: Word, ctx: RunContext) -> Word:
        return self.later(task_input)

    async def later(self, task_input: Word) -> Word:
        return task_input


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (Unfinished(), "unfinished has no run: write `async def run"),
        (Forgot(), "forgot.run returned a coroutine: write `async def run`"),
    ],
)
async def test_what_shows_only_at_its_first_attempt_says_what_would_be_right(agent, said):
    """A base may leave `run` to others; what a function returns is not known before."""
    outcome = (await run_agent(agent, Word(word="a"))).outcome
    assert isinstance(outcome, Retrying)
    assert said in outcome.fault.message


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({"max_attempts": 0}, "max_attempts is a whole number from 1, not 0"),
        ({"max_attempts": None}, "max_attempts is a whole number from 1, not None"),
        ({"base": 1}, r"base is a timedelta, such as timedelta\(seconds=1\), not 1"),
        ({"ceiling": timedelta(seconds=-1)}, "ceiling is a timedelta"),
        ({"jitter": 0.5}, "jitter is a function"),
    ],
)
def test_so_does_a_retry_policy(given, right):
    """With what would be right."""
    with pytest.raises(ConfigurationError, match=f"Retry: {right}"):
        Retry(**given)


@pytest.mark.parametrize("after", [7, 7.0, timedelta(seconds=7)])
async def test_retry_later_takes_seconds_as_apply_async_does(after):
    """A number, or a timedelta."""

    async def act(self, task_input, ctx):
        raise RetryLater(after=after)

    outcome = (await run_agent(agent_that(act), Word(word="a"))).outcome
    assert isinstance(outcome, Retrying)
    assert outcome.fault.type == "RetryLater"
    assert outcome.delay == timedelta(seconds=7)


def test_names():
    """Default name in snake_case; what could not be a name is refused at import."""

    class LongName(Agent[Word, Word]):
        pass

    assert LongName.name == "long_name"
    with pytest.raises(ConfigurationError, match="use letters"):
        type("Bad", (Base,), {"name": "no spaces"})
    with pytest.raises(ConfigurationError, match="is a priority"):
        type("Bad", (Base,), {"name": "b", "queue": "high"})
