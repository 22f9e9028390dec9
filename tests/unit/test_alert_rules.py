"""Rules for alerts: what they pick, what is refused at start, what becomes of one that fails."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from orchestrator import Agent, Alert, Investigation, Priority, Rule, RunContext, Severity
from orchestrator.errors import ConfigurationError, DeadReason, DuplicateRule
from orchestrator.investigation import Member, Standing, join
from orchestrator.registry import AgentRegistry
from orchestrator.rule import LONGEST_KEY, RuleFailed, Step, ask, storable_key, task_for
from orchestrator.task import new_id

NOW = datetime(2026, 3, 11, 6, 0, tzinfo=UTC)


class Look(Agent[Alert, str]):
    """Takes alerts."""


class Case(BaseModel):
    """What another agent takes."""

    investigation: str
    alert: Alert


class Open(Agent[Case, str]):
    """Takes no alerts."""


class Beacons(Rule):
    """All that a rule can say."""

    agent = Open
    kinds = frozenset({"network", "cps"})
    min_severity = Severity.MEDIUM
    signature = r"\bc2\b"

    def matches(self, alert: Alert) -> bool:
        return alert.dest_port != 22

    def correlation(self, alert: Alert) -> str | None:
        return alert.src_ip

    def input(self, alert: Alert, investigation: Investigation | None) -> Case:
        return Case(investigation=investigation.id if investigation else "", alert=alert)


class Every(Rule):
    """The least that a rule can say."""

    agent = Look


def alert(**said: Any) -> Alert:
    fields = {"id": new_id(), "occurred_at": NOW, "severity": "high", "signature": "a C2 beacon"}
    return Alert.model_validate(fields | {"src_ip": "192.0.2.7"} | said)


def test_a_rule_picks_by_kind_severity_signature_and_its_own_mind():
    """All of them have to agree."""
    assert ask(Beacons(), alert()) is not None
    assert ask(Beacons(), alert(kind="cps")) is not None
    assert ask(Every(), alert(kind="cps")) is None
    assert ask(Beacons(), alert(severity="low")) is None
    assert ask(Beacons(), alert(signature="other")) is None
    assert ask(Beacons(), alert(dest_port=22)) is None


def test_the_key_is_the_rules_and_none_means_by_itself():
    """192.0.2.7 correlates; an alert without an address stands alone."""
    found, alone = ask(Beacons(), alert()), ask(Beacons(), alert(src_ip=None))

    assert found is not None
    assert alone is not None
    assert (found.key, alone.key) == ("192.0.2.7", None)


@given(st.text(min_size=1, max_size=400))
def test_a_key_is_stored_as_it_is_compared(text: str):
    """Whatever an attacker writes: bounded, nothing that Postgres or our format would change."""
    key = storable_key(text)

    assert 0 < len(key) <= LONGEST_KEY
    assert storable_key(key) == key
    assert key.encode()
    assert key.isprintable() or not set(key) & {chr(each) for each in range(32)}


def test_two_long_keys_stay_two():
    """What is cut is told apart by a digest."""
    assert storable_key("x" * 500) != storable_key("x" * 499 + "y")


def test_the_task_carries_input_lane_and_where_it_came_from():
    """And the same alert is the same task, however often it is read."""
    one = alert()
    task = task_for(Every(), one)

    assert task == task_for(Every(), one)
    assert task.input["signature"] == "a C2 beacon"
    assert task.priority is Priority.HIGH
    assert task_for(Every(), alert(severity="medium")).priority is Priority.NORMAL
    assert task.metadata == {"rule": "every", "alert_id": one.id}
    assert task_for(Beacons(), one).task_id != task_for(Every(), one).task_id


def faulty(**said: Any) -> type[Rule]:
    return type("Faulty", (Rule,), {"agent": Look} | said)


async def _late(self: Any, alert: Alert) -> bool:
    return True


def _case(self: Any, alert: Alert, investigation: Investigation | None) -> Case:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ({"agent": None}, "write `agent = ...`"),
        ({"agent": "look"}, "write the agent's class"),
        ({"name": "a b"}, "use letters"),
        ({"kinds": {"netwrok"}}, "some of network, cps"),
        ({"kinds": "network"}, "some of network, cps"),
        ({"kinds": frozenset()}, "some of network, cps"),
        ({"min_severity": "medium"}, "write Severity.MEDIUM"),
        ({"signature": "("}, "no regular expression"),
        ({"signature": 7}, "no regular expression"),
        ({"window": timedelta(0)}, "over 0"),
        ({"window": 600}, "write a timedelta"),
        ({"gather": timedelta(-1)}, "from 0 up to the window"),
        ({"gather": timedelta(hours=1)}, "from 0 up to the window"),
        ({"matches": _late}, "write a plain `def`"),
        ({"agent": Open}, "does not take Alert"),
        ({"input": _case}, "does not take Case"),
    ],
)
def test_what_could_never_work_is_refused_at_import(said: dict[str, Any], right: str):
    """With what would be right, and whose class it is."""
    with pytest.raises(ConfigurationError, match=right) as caught:
        faulty(**said)

    assert "Faulty" in str(caught.value)


def test_a_foundation_for_other_rules_needs_no_agent():
    """It says that it is one, and is no rule itself."""

    class Ours(Rule, abstract=True):
        min_severity = Severity.HIGH

    class Mine(Ours):
        agent = Look

    assert (Ours.abstract, Mine.abstract, Mine.min_severity) == (True, False, Severity.HIGH)


def test_two_rules_of_one_name_are_refused_with_both_places():
    """Their tasks and investigations would be each other's."""
    again = type("Again", (Rule,), {"agent": Look, "name": "every"})

    with pytest.raises(DuplicateRule, match=r"Every and .*Again"):
        AgentRegistry([Look], [Every, again])


def test_a_rule_of_an_agent_that_is_not_loaded_is_refused():
    """Nobody would run its tasks."""
    with pytest.raises(ConfigurationError, match="is not loaded"):
        AgentRegistry([Open], [Every])


def _raise(*_: Any) -> Any:
    raise ValueError("no\ud800pe" + "x" * 1000)


def _exit(*_: Any) -> Any:
    raise SystemExit


class Unsayable(BaseException):
    def __str__(self) -> str:
        raise ValueError


def _raise_what_cannot_say_what_it_is(*_: Any) -> Any:
    raise Unsayable


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"matches": _raise}, r"matches\(\) raised ValueError: no"),
        ({"matches": _exit}, r"matches\(\) raised SystemExit"),
        ({"matches": _raise_what_cannot_say_what_it_is}, r"raised Unsayable: \(no text"),
        ({"matches": lambda *_: None}, r"matches\(\) answered a NoneType; .* True or False"),
        ({"correlation": lambda *_: 7}, r"correlation\(\) answered a int; .* a text"),
        ({"correlation": lambda *_: ""}, r"correlation\(\) answered a str; .* a text"),
        ({"input": _raise}, r"input\(\) raised ValueError"),
        ({"priority": lambda *_: "urgent"}, r"priority\(\) answered a str; .* high, normal, low"),
        ({"priority": _raise}, r"priority\(\) raised"),
        ({"matches": lambda *_: _late(None, alert())}, r"matches\(\) answered a coroutine"),
    ],
)
def test_whatever_goes_wrong_in_a_rule_is_that_rules_failure(said: dict[str, Any], why: str):
    """Named, bounded, and text that can be stored."""
    rule, one = faulty(**said)(), alert()

    with pytest.raises(RuleFailed, match=why) as caught:
        (ask(rule, one), task_for(rule, one))

    assert caught.value.rule == "faulty"
    assert caught.value.reason is DeadReason.RULE_FAILED
    assert len(str(caught.value).encode()) < 700


class Leaving(BaseModel):
    signature: str

    @field_validator("signature")
    @classmethod
    def leave(cls, signature: str) -> str:
        sys.exit(signature)


class Leaves(Agent[Leaving, Leaving]):
    async def run(self, task_input: Leaving, ctx: RunContext) -> Leaving:
        return task_input


def test_so_is_what_the_agents_own_validators_raise():
    """It would end the service that asked."""
    rule = faulty(agent=Leaves, input=lambda *_: {"signature": "x"})()

    with pytest.raises(RuleFailed, match=r"input\(\) raised SystemExit: x"):
        task_for(rule, alert())


def test_ctrl_c_is_nobodys_failure():
    """Somebody at the command line wants out."""

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(faulty(matches=interrupted)(), alert())


def test_input_that_the_agent_refuses_keeps_its_own_reason():
    """The letter then says invalid_input, with the field."""
    with pytest.raises(RuleFailed, match="/id") as caught:
        task_for(faulty(input=lambda *_: {"id": 7})(), alert())

    assert caught.value.reason is DeadReason.INVALID_INPUT


def members(*severities: Severity) -> list[Member]:
    rule = Beacons()
    return [
        Member(alert=alert(severity=each), received_at=NOW, rule=rule, key="k")
        for each in severities
    ]


NEW = Standing(
    id=new_id(), rule="beacons", key="k", opened_at=NOW, severity=Severity.INFO, alerts=0,
    first_alert_at=NOW, last_alert_at=NOW, task_ids=(),
)  # fmt: skip


def make(member: Member, investigation: Investigation, step: Step) -> Any:
    return task_for(member.rule, member.alert, investigation=investigation, step=step)


@given(st.lists(st.lists(st.sampled_from(Severity), max_size=5), max_size=8))
def test_a_storm_makes_two_tasks_at_most_and_loses_nobody(batches: list[list[Severity]]):
    """One for the story, one when it turns critical, in whatever order and batches."""
    standing, tasks = NEW, []
    for batch in batches:
        joined = join(standing, members(*batch), make)
        assert (joined.replaced is None) or joined.replaced == standing.task_ids[0]
        standing = joined.after
        tasks += [joined.task] if joined.task else []

    said = [each for batch in batches for each in batch]
    critical = Severity.CRITICAL in said
    assert standing.alerts == len(said)
    assert len(tasks) == len(set(standing.task_ids)) <= 2
    assert bool(tasks) == bool(said)
    if said:
        assert standing.severity is max(said, key=lambda each: each.rank)
        assert tasks[-1].priority is (Priority.HIGH if critical else tasks[-1].priority)
    if critical and standing.task_ids:
        assert tasks[-1].input["alert"]["severity"] == "critical"


def test_an_alert_that_its_rule_cannot_use_is_no_member_and_the_next_stands_in():
    """A story does not wait for one bad alert."""
    two = members(Severity.CRITICAL, Severity.MEDIUM)

    def choosy(member: Member, investigation: Investigation, step: Step) -> Any:
        if member is two[0]:
            raise RuleFailed("beacons", "no")
        return make(member, investigation, step)

    joined = join(NEW, two, choosy)

    assert [member for member, _ in joined.refused] == [two[0]]
    assert (joined.after.alerts, joined.after.severity) == (1, Severity.MEDIUM)
    assert joined.task is not None
