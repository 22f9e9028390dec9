"""Who gets into the dashboard, for how long, and what nobody can make a browser do there."""

import hashlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from orchestrator.api.auth import CACHE_FOR, scope_of
from orchestrator.dashboard import site
from orchestrator.dashboard.headers import POLICY
from orchestrator.dashboard.pages import task
from orchestrator.dashboard.sessions import ADDRESSES, SAFE, WRONG_PER_MINUTE, WrongSignIns
from orchestrator.db import keys, sessions
from orchestrator.db.keys import Scope
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from tests.dashboard.serving import HERE, SOME_ID, Dashboard, serving

OPEN = {"/sign-in", "/static/{version}/{name:path}"}


@pytest.fixture
async def dashboard(
    settings: Settings, database: Database, streams: Streams
) -> AsyncIterator[Dashboard]:
    async with serving(settings, database, streams) as found:
        yield found


async def test_nothing_is_shown_without_a_session(dashboard: Dashboard):
    """Every page leads to the sign-in, whatever the method; the API behind stays closed."""
    async with dashboard.browser() as client:
        for method, path, _ in dashboard.routes:
            if path in OPEN:
                continue
            answer = await client.request(method, dashboard.filled(path))
            assert answer.status_code == 303, (method, path)
            assert answer.headers["location"].startswith("/sign-in?next=%2F"), path
        for path in ("/api/v1/tasks", "/openapi.json", "/docs", "/nothing"):
            assert (await client.get(path)).status_code == 401, path


async def test_a_cookie_opens_no_route_of_the_api(dashboard: Dashboard):
    """What changes things over HTTP wants a header, which no form and no image can send."""
    ada = await dashboard.person()

    assert (await ada.get("/tasks")).status_code == 200
    assert (await ada.get("/api/v1/tasks")).status_code == 401


async def test_every_page_lets_its_scope_in_and_no_other(dashboard: Dashboard):
    """The matrix of pages and scopes, made from the application; 403 names what is missing."""
    people = {scope: await dashboard.person([scope.value]) for scope in Scope}
    guarded = [each for each in dashboard.routes if scope_of(each[2])]

    for method, path, route in guarded:
        needed = scope_of(route)
        for scope, person in people.items():
            let_in = scope in {needed, Scope.ADMIN}
            if path.startswith("/live/") and let_in:
                continue  # a bell has no end that could be waited for
            if method in SAFE:
                answer = await person.get(dashboard.filled(path))
            else:
                answer = await person.send(dashboard.filled(path), id=SOME_ID)
            # What comes after the door (404, 400 ...) is other tests' business.
            assert (answer.status_code != 403) == let_in, (method, path, scope)
            if not let_in:
                assert f"--scope {needed}" in answer.text


async def test_every_answer_forbids_what_pages_do_not_need(dashboard: Dashboard):
    """Of pages, errors and files: nothing inline, nothing from elsewhere, no frame around it."""
    ada = await dashboard.person()
    for path in ("/", "/tasks", "/tasks/no", f"/tasks/{SOME_ID}", "/sign-in", "/static/x/app.css"):
        answer = await ada.get(path)
        assert answer.headers["content-security-policy"] == POLICY, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "style=" not in answer.text or path.startswith("/static")
        assert "<script>" not in answer.text
    assert "unsafe" not in POLICY
    assert "frame-ancestors 'none'" in POLICY


async def test_signing_in_and_out(dashboard: Dashboard):
    """The cookie is out of reach for scripts and other sites, and kept here as a hash alone."""
    key_id, key = await keys.create_key(dashboard.parts.database, "test", ["tasks:read"])
    async with dashboard.browser() as client:
        wrong = await client.post("/sign-in", data={"key": key[:-1] + "x"})
        assert wrong.status_code == 403
        assert "unknown, revoked or expired" in wrong.text
        assert "set-cookie" not in wrong.headers

        answer = await client.post("/sign-in", data={"key": f" {key}\n", "next": "/tasks?state=x"})
        assert answer.headers["location"] == "/tasks?state=x"
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {*cookie.split("; ")}
        token = client.cookies["aurora"]
        assert token not in repr(await _sessions(dashboard))
        assert hashlib.sha256(token.encode()).hexdigest() in repr(await _sessions(dashboard))
        page = await client.get("/tasks")
        assert key not in page.text
        assert key_id in page.text

        csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
        out = await client.post("/sign-out", data={"csrf": csrf})
        assert out.headers["location"] == "/sign-in"
        client.cookies.set("aurora", token)
        assert (await client.get("/tasks")).status_code == 303
    assert await _sessions(dashboard) == []


async def test_behind_tls_the_cookie_is_for_tls_alone(dashboard: Dashboard):
    """And no other host of the domain can set it."""
    _, key = await keys.create_key(dashboard.parts.database, "test", ["tasks:read"])
    async with dashboard.browser() as client:
        client.base_url = "https://dashboard"
        answer = await client.post("/sign-in", data={"key": key})

    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-aurora=")
    assert "Secure" in cookie.split("; ")


async def test_signing_in_leads_to_no_other_site(dashboard: Dashboard):
    """`next` is a page of ours, or the first one."""
    _, key = await keys.create_key(dashboard.parts.database, "test", ["tasks:read"])
    async with dashboard.browser() as client:
        for elsewhere in ("//evil.example", "/\\evil.example", "https://evil.example", "/\n/x"):
            answer = await client.post("/sign-in", data={"key": key, "next": elsewhere})
            assert answer.headers["location"] == "/", elsewhere


async def test_a_revoked_key_ends_its_sessions(dashboard: Dashboard, monkeypatch):
    """Within the seconds that a session is remembered for."""
    ada = await dashboard.person()
    assert (await ada.get("/tasks")).status_code == 200
    assert CACHE_FOR < 5
    clock = dashboard.site.pages.state.sessions._clock

    await keys.revoke(dashboard.parts.database, ada.key_id)
    monkeypatch.setattr(
        dashboard.site.pages.state.sessions, "_clock", lambda: clock() + CACHE_FOR + 0.1
    )

    assert (await ada.get("/tasks")).headers["location"].startswith("/sign-in")


async def test_a_session_ends_by_itself(dashboard: Dashboard):
    """After a shift, whoever keeps the cookie."""
    ada = await dashboard.person()
    async with dashboard.parts.database.transaction() as connection:
        await connection.execute(text("UPDATE sessions SET expires_at = now()"))

    assert await sessions.find(dashboard.parts.database, ada.client.cookies["aurora"]) is None


async def test_sessions_of_one_key_are_bounded(dashboard: Dashboard, monkeypatch):
    """Whoever holds a key cannot fill the table with it."""
    monkeypatch.setattr(sessions, "MOST_OF_A_KEY", 3)
    _, text_ = await keys.create_key(dashboard.parts.database, "test", ["admin"])
    key = await keys.verify(dashboard.parts.database, text_)
    assert key is not None
    tokens = [await sessions.begin(dashboard.parts.database, key) for _ in range(5)]

    assert len(await _sessions(dashboard)) == 3
    assert await sessions.find(dashboard.parts.database, tokens[-1]) is not None
    assert await sessions.find(dashboard.parts.database, tokens[0]) is None


async def test_wrong_keys_are_counted(dashboard: Dashboard):
    """After ten a minute the address waits, and no query is made for it."""
    async with dashboard.browser() as client:
        for _ in range(WRONG_PER_MINUTE):
            assert (await client.post("/sign-in", data={"key": "ak_no"})).status_code == 403
        answer = await client.post("/sign-in", data={"key": "ak_no"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"


def test_wrong_keys_are_counted_in_bounded_memory():
    """Whatever the number of addresses; and a minute later an address may try again."""
    now = [0.0]
    wrong = WrongSignIns(clock=lambda: now[0])
    for each in range(ADDRESSES * 2):
        wrong.note(f"10.0.{each}")
    assert len(wrong._tried) == ADDRESSES
    for _ in range(WRONG_PER_MINUTE):
        wrong.note("192.0.2.1")
    assert wrong.are_too_many("192.0.2.1")
    now[0] = 60.0
    assert not wrong.are_too_many("192.0.2.1")


async def test_a_form_of_another_site_changes_nothing(dashboard: Dashboard):
    """Also with the cookie and the right token: the browser says where it comes from."""
    ada = await dashboard.person()
    for site_, origin in (
        ("cross-site", "http://evil.example"),
        ("same-site", "http://other.dashboard"),
        ("none", ""),
        ("", "http://evil.example"),
        ("", "null"),
        ("", ""),
    ):
        answer = await ada.send("/sign-out", {"Sec-Fetch-Site": site_, "Origin": origin})
        assert answer.status_code == 403
        assert "another site" in answer.text
    assert (await ada.get("/tasks")).status_code == 200


async def test_a_form_without_the_sessions_token_changes_nothing(dashboard: Dashboard):
    """Also where the browser calls it our own; another session's token is none either."""
    ada, eve = await dashboard.person(), await dashboard.person()
    csrf = (await eve.get("/tasks")).text.split('name="csrf" value="')[1].split('"')[0]

    for given in ({}, {"csrf": ""}, {"csrf": "ä"}, {"csrf": csrf}):
        answer = await ada.client.post("/sign-out", data=given)
        assert answer.status_code == 403
        assert "earlier sign-in" in answer.text
    assert (await ada.get("/tasks")).status_code == 200


async def test_a_browser_that_sends_no_fetch_metadata_is_known_by_its_origin(dashboard: Dashboard):
    """As over plain HTTP in a network; a proxy that ends TLS does not matter."""
    ada = await dashboard.person()
    answer = await ada.send(
        "/sign-out", {"Sec-Fetch-Site": "", "Origin": HERE.replace("p:", "ps:")}
    )
    assert answer.headers["location"] == "/sign-in"


async def test_a_link_from_elsewhere_arrives(dashboard: Dashboard):
    """The browser keeps the cookie from it; a page of ours asks again, with the cookie."""
    path = f'/tasks/{SOME_ID}?x="><script>'
    async with dashboard.browser() as client:
        answer = await client.get(path, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200
        assert f'content="0; url=/tasks/{SOME_ID}?x=' in answer.text
        assert "<script>" not in answer.text
        evil = await client.get("//evil.example/", headers={"Sec-Fetch-Site": "cross-site"})
        assert 'url=/"' in evil.text


async def test_a_part_that_is_asked_for_after_the_session_reloads_the_page(dashboard: Dashboard):
    """A sign-in form inside a list would be no help."""
    async with dashboard.browser() as client:
        answer = await client.get("/tasks/news", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-refresh"]) == (401, "true")


async def test_a_body_over_the_limit_is_not_read(dashboard: Dashboard):
    """Nobody needs a session to send one."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"key=" + b"x" * 65_536 + b"&"

    async with dashboard.browser() as client:
        answer = await client.post("/sign-in", data={"key": "x" * 1_000_000})
        assert answer.status_code == 413
        answer = await client.post("/sign-in", content=endless(), headers=headers)
        assert answer.status_code in {400, 413}


async def test_files_have_an_address_for_ever(dashboard: Dashboard):
    """Of what is there; no path leads outside, and another version is kept by nobody."""
    version = dashboard.site.pages.state.assets.version
    async with dashboard.browser() as client:
        found = await client.get(f"/static/{version}/app.css")
        assert found.headers["content-type"].startswith("text/css")
        assert "immutable" in found.headers["cache-control"]
        assert (await client.get("/static/old/app.css")).headers["cache-control"] == "no-store"
        for path in ("../site.py", "..%2fsite.py", "/etc/passwd", "vendor"):
            assert (await client.get(f"/static/{version}/{path}")).status_code in {401, 404}, path


async def test_an_open_page_is_not_served(dashboard: Dashboard, monkeypatch):
    """Deny by default: a forgotten scope, or token, is found when the process starts."""
    cancel = next(each for each in task.router.routes if each.path.endswith("/cancel"))
    both = list(cancel.dependencies)
    for kept, said in ((both[:1], "can be forged"), (both[1:], "names no scope")):
        monkeypatch.setattr(cancel, "dependencies", kept)
        with pytest.raises(AssertionError, match=said):
            site.create_site(dashboard.parts, reading=dashboard.reading)


async def _sessions(dashboard: Dashboard) -> list[tuple[str, ...]]:
    async with dashboard.parts.database.transaction() as connection:
        return [tuple(row) for row in await connection.execute(text("SELECT * FROM sessions"))]
