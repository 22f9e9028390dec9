"""Who may call what: every route without a key, and every route with every scope."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi.routing import APIRoute

from orchestrator.api.app import create_app
from orchestrator.api.auth import OPEN, needs, scope_of
from orchestrator.api.routes import agents
from orchestrator.db import keys
from orchestrator.db.keys import Scope
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from tests.api import Api, assert_problem, serving

SOME_ID = "018f0000-0000-7000-8000-000000000001"


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    async with serving(settings, database, streams) as found:
        yield found


def _calls(api: Api) -> list[tuple[str, str, APIRoute]]:
    """(method, path, route) of everything that the application serves."""
    return [
        (method, route.path.replace("{name}", "echo").replace("_id}", "}"), route)
        for route in api.routes
        for method in sorted(route.methods)
    ]


def _path(template: str) -> str:
    before, brace, after = template.partition("{")
    return before + SOME_ID + after.partition("}")[2] if brace else before


async def test_without_a_key_nothing_answers_but_the_probes(api: Api):
    """No anonymous access, whatever the method and whether or not there is such a path."""
    calls = [(method, _path(path)) for method, path, _ in _calls(api)]
    assert len(calls) > 25
    calls += [("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/"), ("POST", "/livez/x")]
    calls += [("DELETE", "/api/v1/tasks"), ("GET", "/api/v1/nothing"), ("OPTIONS", "/api/v1/tasks")]

    async with api.anonymous() as client:
        for method, path in calls:
            answer = await client.request(method, path)
            if path in OPEN:
                assert answer.status_code in {200, 503}, path
            else:
                assert_problem(answer, 401, "unauthenticated")
                assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_every_route_lets_its_scope_in_and_no_other(api: Api):
    """The matrix of routes and scopes, made from the application itself."""
    headers = {scope: await api.with_scopes([scope.value]) for scope in Scope}
    guarded = [each for each in _calls(api) if each[1] not in OPEN]

    for method, path, route in guarded:
        needed = scope_of(route)
        assert needed in set(Scope), path
        for scope in Scope:
            # A feed would never end; what is behind the door refuses this.
            query = {"last_id": "none"} if path.endswith("/events") else None
            answer = await api.client.request(
                method, _path(path), headers=headers[scope], params=query
            )
            let_in = scope in {needed, Scope.ADMIN}
            # What comes after the door (404, 422 ...) is other tests' business.
            assert (answer.status_code not in {401, 403}) == let_in, (method, path, scope)


async def test_a_missing_scope_is_named(api: Api):
    """403 says what to ask for."""
    headers = await api.with_scopes(["tasks:read", "audit:read"])

    answer = await api.client.post("/api/v1/tasks", json={"agent": "echo"}, headers=headers)

    body = assert_problem(answer, 403, "forbidden")
    assert body["missing_scope"] == "tasks:write"
    assert "audit:read, tasks:read" in body["detail"]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer ak_0", "ak_0", "Bearer \u00e4\u00f6"]
)
async def test_a_header_that_is_no_key_is_refused(api: Api, header: str):
    """Whatever stands in it."""
    async with api.anonymous() as client:
        answer = await client.get(
            "/api/v1/tasks", headers=[(b"authorization", header.encode("latin-1"))]
        )

    assert_problem(answer, 401)


async def test_two_authorization_headers_are_refused(api: Api):
    """A proxy in front may have looked at the other one."""
    given = [(b"authorization", f"Bearer {api.key}".encode())] * 2
    async with api.anonymous() as client:
        assert_problem(await client.get("/api/v1/tasks", headers=given), 401)
        assert (await client.get("/api/v1/tasks", headers=given[:1])).status_code == 200


async def test_a_revoked_key_is_refused(api: Api):
    """A key that was never cached is refused at once."""
    key_id, key = await keys.create_key(api.parts.database, "short", ["tasks:read"])
    await keys.revoke(api.parts.database, key_id)

    answer = await api.client.get("/api/v1/tasks", headers={"Authorization": f"Bearer {key}"})

    assert_problem(answer, 401)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_the_openapi_document_is_for_whoever_has_a_key(api: Api):
    """And names each operation by hand, with problems as its errors."""
    document = (await api.client.get("/openapi.json")).json()

    operations = [
        operation
        for path, methods in document["paths"].items()
        if path not in OPEN
        for operation in methods.values()
    ]
    assert len({each["operationId"] for each in operations}) == len(operations)
    assert all("_" not in each["operationId"] for each in operations)
    assert all("4XX" in each["responses"] and "422" not in each["responses"] for each in operations)
    assert all([*each["security"][0]] == ["ApiKey"] for each in operations)


def test_a_route_without_a_scope_is_not_served(api: Api, monkeypatch: pytest.MonkeyPatch):
    """Deny by default: a forgotten line is found when the process starts."""
    route = agents.router.routes[0]
    assert isinstance(route, APIRoute)
    assert create_app(api.parts)
    monkeypatch.setattr(route, "dependencies", [])

    with pytest.raises(AssertionError, match="names no scope"):
        create_app(api.parts)


def test_needs_takes_one_scope():
    """What `scope_of` reads back."""
    assert needs(Scope.TASKS_READ).scopes == ["tasks:read"]


async def test_a_key_in_the_cache_is_not_looked_up_again(api: Api):
    """Otherwise each request would cost a query before its own."""
    await api.client.get("/api/v1/agents")
    engine, api.parts.database.engine = api.parts.database.engine, None  # type: ignore[assignment]
    sessions, api.parts.database.sessions = api.parts.database.sessions, None  # type: ignore[assignment]
    try:
        answer: httpx2.Response = await api.client.get("/api/v1/agents")
    finally:
        api.parts.database.engine, api.parts.database.sessions = engine, sessions

    assert answer.status_code == 200
