"""What was spent, wherever one looks: the sums agree to the token."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from random import Random

import pytest

from orchestrator.db import usage as reading
from orchestrator.db.session import Database
from orchestrator.db.usage import By, calls_of, spending
from orchestrator.event import EventKind
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import Task, new_id
from orchestrator.usage import ModelCall, Usage
from tests.acceptance.test_cli import aurora
from tests.api import Api, assert_problem, serving
from tests.integration.test_api_health import _metrics
from tests.integration.test_model_calls import keep
from tests.integration.test_spine import rows
from tests.unit.test_record import NOW, heard, seen

DAY = timedelta(days=1)
MODELS = ("local:gemma-3-270m", "openai:gpt-5-mini")
SUMMED = tuple(Usage.model_fields)


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    async with serving(settings, database, streams) as found:
        yield found


def call_of(random: Random, *, day: int = 0, model: str = MODELS[0]) -> ModelCall:
    """A call; those of the local model have no price."""
    tokens = random.randrange(1, 10**6)
    return ModelCall(
        id=new_id(), model=model, at=NOW + day * DAY, seconds=random.random(),
        input_tokens=tokens, output_tokens=random.randrange(10**4),
        cached_tokens=random.randrange(tokens), tool_calls=random.randrange(3),
        cost_usd=None if model == MODELS[0] else Decimal(random.randrange(10**9)) / 10**9,
    )  # fmt: skip


def spent(task: Task, call: ModelCall, entry: int, *, attempt: int = 1):
    """The message of a call."""
    said = heard(entry, EventKind.USAGE, attempt=attempt, task_id=task.task_id)
    event = said.event.model_copy(update={"agent": task.agent})
    return said._replace(call=call, event=event)


async def lives(database: Database) -> dict[tuple[str, str, int], list[ModelCall]]:
    """Tasks that failed, were killed, superseded, retried; messages read twice, in any order.

    (task, agent, attempt) -> what it called.
    """
    random, found = Random(6), {}
    for number, (agent, ends) in enumerate(product(("analyst", "report"), EventKind)):
        task = Task(task_id=new_id(), agent=agent, input={"n": number})
        said = [seen(1, task=task)]
        for attempt in (1, 2, 3):
            model = MODELS[(number + attempt) % 2]
            calls = [call_of(random, day=-attempt, model=model) for _ in range(attempt)]
            found[task.task_id, agent, attempt] = calls
            said += [spent(task, each, 2, attempt=attempt) for each in calls]
        if ends.state.is_terminal:
            # The third attempt is superseded where the second one is the end.
            last = 2 + number % 2
            said.append(heard(5, ends, attempt=last, task_id=task.task_id, crashes=1))
        said += random.sample(said[1:], 3)
        random.shuffle(said)
        for start in range(0, len(said), 4):
            await keep(database, *said[start : start + 4])
    return found


def total(calls) -> dict:
    return Usage.of(calls).as_json()


def added(usages) -> dict:
    """The sum of sums, as JSON says them."""
    found = {name: sum(each[name] for each in usages) for name in SUMMED if name != "cost_usd"}
    costs = [Decimal(each["cost_usd"]) for each in usages if each["cost_usd"] is not None]
    return found | {"cost_usd": f"{sum(costs):f}" if costs else None}


async def test_the_sums_agree_wherever_one_looks(api: Api, settings: Settings, tmp_path):
    """The ledger, results, attempts, /metrics, /api/v1/usage, the command line: to the token."""
    database = api.parts.database
    made = await lives(database)
    every = [call for calls in made.values() for call in calls]

    ledger = [ModelCall.model_validate({**row, "id": str(row["id"])})
              for row in await rows(database, "SELECT * FROM model_calls")]  # fmt: skip
    assert len(ledger) == len(every)
    assert total(ledger) == total(every)

    lines = await rows(database, "SELECT task_id::text AS task_id, attempt, usage FROM attempts")
    of_attempts = {(e["task_id"], e["attempt"]): e["usage"] for e in lines if e["usage"]}
    assert of_attempts == {(task, attempt): total(made[task, agent, attempt])
                           for task, agent, attempt in made}  # fmt: skip
    results = await rows(database, "SELECT task_id::text AS task_id, usage FROM results")
    assert results
    for each in results:
        calls = [call for key in made if key[0] == each["task_id"] for call in made[key]]
        assert each["usage"] == total(calls)
        answer = await api.client.get(f"/api/v1/tasks/{each['task_id']}")
        assert answer.json()["result"]["usage"] == total(calls)
        assert added([a["usage"] for a in answer.json()["attempts"] if a["usage"]]) == total(calls)

    await agree_by_agent_and_model(api, settings, tmp_path, made)


async def agree_by_agent_and_model(api: Api, settings: Settings, folder, made) -> None:
    pairs = {(agent, model): [call for key, calls in made.items() if key[1] == agent
                              for call in calls if call.model == model]
             for agent in ("analyst", "report") for model in MODELS}  # fmt: skip
    every = [call for calls in made.values() for call in calls]
    answer = (await api.client.get("/api/v1/usage?group_by=agent,model,day")).json()
    assert {name: answer["total"][name] for name in SUMMED} == total(every)
    assert added(answer["items"]) == total(every)
    env = {"AURORA_REDIS_URL": settings.redis_url.get_secret_value(),
           "AURORA_DATABASE_URL": settings.database_url.get_secret_value()}  # fmt: skip
    printed = json.loads((await aurora("usage", "-o", "json", cwd=folder, **env)).out)
    metrics = await _metrics(api)
    for (agent, model), calls in pairs.items():
        expected = total(calls)
        items = [e for e in answer["items"] if (e["agent"], e["model"]) == (agent, model)]
        assert added(items) == expected
        (line,) = [e for e in printed if (e["agent"], e["model"]) == (agent, model)]
        assert {name: line[name] for name in SUMMED} == expected
        labels = f'agent="{agent}",model="{model}"'
        assert metrics[f"aurora_model_requests_total{{{labels}}}"] == len(calls)
        assert (
            metrics[f"aurora_model_unpriced_requests_total{{{labels}}}"]
            == (expected["unpriced_requests"])
        )
        for kind in ("input", "output", "cached"):
            name = f'aurora_model_tokens_total{{{labels},type="{kind}"}}'
            assert metrics[name] == expected[f"{kind}_tokens"]
        provider, _, name = model.partition(":")
        standard = (
            f'gen_ai_agent_name="{agent}",gen_ai_provider_name="{provider}",'
            f'gen_ai_request_model="{name}",gen_ai_token_type="output"'
        )
        assert metrics[f"gen_ai_client_token_usage_count{{{standard}}}"] == len(calls)
        assert metrics[f"gen_ai_client_token_usage_sum{{{standard}}}"] == expected["output_tokens"]
        assert metrics[f"aurora_model_tool_calls_total{{{labels}}}"] == expected["tool_calls"]
        assert metrics[f"aurora_model_cost_usd_total{{{labels}}}"] == pytest.approx(
            float(expected["cost_usd"] or 0)
        )


async def test_usage_by_whatever_words_and_times(api: Api):
    """Any of agent, model and day, in UTC; `since` is included, `until` is not; newest first."""
    task = Task(task_id=new_id(), agent="analyst", input={})
    random = Random(1)
    late = call_of(random, model=MODELS[1]).model_copy(
        update={"at": datetime(2026, 11, 22, 23, 59, 59, 999_999, tzinfo=UTC)}
    )
    early = late.model_copy(update={"id": new_id(), "at": datetime(2026, 11, 23, tzinfo=UTC)})
    local = call_of(random, day=-1)
    calls = [late, early, local]
    await keep(api.parts.database, *(spent(task, each, 2) for each in calls))

    async def usage(query: str = "") -> dict:
        answer = await api.client.get(f"/api/v1/usage{query}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    days = await usage("?group_by=day")
    assert [each["day"] for each in days["items"]] == ["2026-11-23", "2026-11-22"]
    assert {name: days["items"][1][name] for name in SUMMED} == total([late, local])
    assert days["items"][0]["agent"] is None
    (only,) = (await usage())["items"]
    assert {name: only[name] for name in SUMMED} == total(calls)
    assert (await usage("?since=2026-11-23"))["total"]["requests"] == 1
    assert (await usage("?until=2026-11-23"))["total"]["requests"] == 2
    assert (await usage(f"?model={MODELS[0]}&agent=analyst"))["total"]["cost_usd"] is None
    nobody = await usage("?agent=nobody&group_by=model&group_by=day")
    assert (nobody["items"], nobody["total"]["requests"]) == ([], 0)
    first = await usage("?group_by=model,day&limit=1")
    assert (len(first["items"]), first["left_out"], first["total"]["requests"]) == (1, 2, 3)


async def test_a_wrong_question_is_told_what_would_be_right(api: Api):
    """P10: a word that is none, times the wrong way round, a key without the scope."""
    wrong = await api.client.get("/api/v1/usage?group_by=agent,colour")
    assert "'colour'; there are agent, model, day" in assert_problem(wrong, 422)["detail"]
    turned = await api.client.get("/api/v1/usage?since=2026-11-23&until=2026-11-22")
    assert "before `until`" in assert_problem(turned, 422)["detail"]
    assert_problem(await api.client.get("/api/v1/usage?limit=1001"), 422)
    headers = await api.with_scopes(["alerts:read"])
    async with api.anonymous() as client:
        assert_problem(await client.get("/api/v1/usage", headers=headers), 403)


async def test_metrics_name_a_bounded_number_of_agents_and_models(api: Api, monkeypatch):
    """P8: a message may bring any name; those that come late are one series, and the sums hold."""
    monkeypatch.setattr(reading, "MOST_PAIRS", 2)
    random, calls = Random(3), []
    for n in range(5):
        task = Task(task_id=new_id(), agent=f"agent-{n}", input={})
        calls.append(call_of(random))
        await keep(api.parts.database, spent(task, calls[-1], 2))

    metrics = await _metrics(api)

    named = {
        name: value for name, value in metrics.items() if "aurora_model_requests_total" in name
    }
    assert sum(named.values()) == 5
    assert named['aurora_model_requests_total{agent="other",model="other"}'] == 3
    tokens = metrics['aurora_model_tokens_total{agent="other",model="other",type="input"}']
    assert tokens == sum(call.input_tokens for call in calls[2:])


async def test_a_tasks_calls_are_listed_in_their_order(database):
    """For its page, bounded."""
    task = Task(task_id=new_id(), agent="analyst", input={})
    calls = [call_of(Random(n), day=n) for n in range(4)]
    await keep(database, *(spent(task, each, 2) for each in reversed(calls)))

    found = await calls_of(database, task.task_id, limit=2)

    assert [each.id for each in found] == [each.id for each in calls[:3]]
    assert (await spending(database, by=[By.DAY])).total.requests == 4
