"""The page of usage, and the calls of a task on its own: the record's figures, as text."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest

from orchestrator.dashboard.pages import usage as page
from orchestrator.dashboard.text import dollars
from orchestrator.db.session import Database
from orchestrator.errors import TookTooLong
from orchestrator.event import EventKind
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.task import Task, new_id
from orchestrator.usage import Usage
from tests.dashboard.serving import Dashboard, serving
from tests.integration.test_model_calls import keep
from tests.integration.test_usage import MODELS, call_of, spent
from tests.unit.test_record import heard, seen

HOSTILE = "<script>alert(1)</script>\u202e"


@pytest.fixture
async def dashboard(
    settings: Settings, database: Database, streams: Streams
) -> AsyncIterator[Dashboard]:
    async with serving(settings, database, streams) as found:
        yield found


async def _task(dashboard: Dashboard, *, model: str = MODELS[1], hours: float = 1) -> tuple:
    """A task that failed once, and its calls."""
    task = Task(task_id=new_id(), agent="analyst", input={})
    at = datetime.now(UTC) - timedelta(hours=hours)
    calls = [call_of(Random(n)).model_copy(update={"at": at, "model": model}) for n in range(3)]
    calls[0] = calls[0].model_copy(update={"cost_usd": Decimal("12.5")})
    await keep(
        dashboard.parts.database, seen(1, task=task),
        *(spent(task, each, 2, attempt=1 + n // 2) for n, each in enumerate(calls)),
        heard(4, EventKind.RETRYING, task_id=task.task_id),
        heard(5, EventKind.SUCCEEDED, attempt=2, task_id=task.task_id),
    )  # fmt: skip
    return task, calls


async def test_the_page_says_what_was_spent_by_agent_model_and_day(dashboard: Dashboard):
    """The sums are the record's; an unknown price is said to be unknown, and no zero."""
    ada = await dashboard.person()
    assert "No model was called" in (await ada.get("/usage")).text
    _, calls = await _task(dashboard)
    total = Usage.of(calls)

    shown = (await ada.get("/usage")).text

    assert shown.count(f"{total.input_tokens:,}") == 3  # in all, of the pair, of the day
    assert "at least $12.5000" in shown
    assert "The price of 2 of 3 requests is not known" in shown
    assert f'href="/usage?model={MODELS[1].replace(":", "%3A")}"' in shown
    assert "No such calls" in (await ada.get("/usage?agent=nobody")).text
    assert (await ada.get("/usage?agents=x")).status_code == 400


async def test_a_task_shows_its_calls_and_what_each_attempt_spent(dashboard: Dashboard):
    """With their sum; a task without calls says nothing of models."""
    ada = await dashboard.person()
    task, calls = await _task(dashboard)
    plain = Task(task_id=new_id(), agent="analyst", input={})
    await keep(dashboard.parts.database, seen(1, task=plain))

    shown = (await ada.get(f"/tasks/{task.task_id}")).text

    assert "3 requests" in shown
    assert shown.count('title="12.5') == 3  # of the call, of its attempt, of all
    for expected in (calls[2].tokens, Usage.of(calls[:2]).tokens, Usage.of(calls).output_tokens):
        assert f"{expected:,}" in shown
    assert "Calls of models" not in (await ada.get(f"/tasks/{plain.task_id}")).text


async def test_a_models_name_is_text(dashboard: Dashboard):
    """It comes from a message; anybody may write one."""
    ada = await dashboard.person()
    task, _ = await _task(dashboard, model=HOSTILE)

    for path in ("/usage", f"/tasks/{task.task_id}"):
        shown = (await ada.get(path)).text
        assert "<script>alert" not in shown
        assert "\u202e" not in shown
        assert "&lt;script&gt;alert(1)&lt;/script&gt;⟨U+202E⟩" in shown


async def test_too_many_calls_to_add_up_are_narrowed_to_a_day(dashboard: Dashboard, monkeypatch):
    """P10: the page says so, and shows what it can."""
    ada = await dashboard.person()
    await _task(dashboard)
    _, old = await _task(dashboard, hours=50)
    whole = page.spending

    async def slow(database, *, since=None, **filters):
        if since is None or since < datetime.now(UTC) - timedelta(hours=25):
            raise TookTooLong("Postgres", "given up")
        return await whole(database, since=since, **filters)

    monkeypatch.setattr(page, "spending", slow)
    shown = (await ada.get("/usage?window=all")).text

    assert "of the last 24 hours" in shown
    assert f"{2 * Usage.of(old).input_tokens:,}" not in shown


async def test_the_page_needs_the_scope(dashboard: Dashboard):
    """As the tasks' own."""
    stranger = await dashboard.person(["alerts:read"])
    answer = await stranger.get("/usage")
    assert answer.status_code == 403
    assert 'href="/usage"' not in answer.text


@pytest.mark.parametrize(
    ("cost", "said"),
    [("0", "$0.0000"), ("0.00009", "<$0.0001"), ("0.00015", "$0.0002"), ("1234.5", "$1,234.5000")],
)
def test_dollars_are_short_and_never_nothing(cost, said):
    assert dollars(Decimal(cost)) == said
