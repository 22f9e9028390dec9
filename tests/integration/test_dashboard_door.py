"""Who gets into the dashboard, and what its answers tell the browser to forbid."""

from collections.abc import AsyncIterator

import pytest

from orchestrator.dashboard.headers import POLICY
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from tests.dashboard.serving import Dashboard, serving


@pytest.fixture
async def dashboard(
    settings: Settings, database: Database, streams: Streams
) -> AsyncIterator[Dashboard]:
    async with serving(settings, database, streams) as found:
        yield found


async def test_nothing_is_shown_without_a_session(dashboard: Dashboard):
    """Every page leads to the sign-in; the API behind it stays as closed as it is alone."""
    async with dashboard.browser() as client:
        for path in ("/", "/tasks", "/tasks/018f0000-0000-7000-8000-000000000001"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["location"].split("?")[0]) == (
                303,
                "/sign-in",
            )
        for path in ("/api/v1/tasks", "/openapi.json", "/nothing"):
            assert (await client.get(path)).status_code == 401, path


async def test_pages_after_signing_in(dashboard: Dashboard):
    """And each carries the policy."""
    ada = await dashboard.person()
    for path in ("/", "/tasks"):
        answer = await ada.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-security-policy"] == POLICY
        assert "<script>" not in answer.text
        assert "style=" not in answer.text
