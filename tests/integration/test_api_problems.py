"""Every 4xx and 5xx is a problem+json that helps, and tells nothing of the inside."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator.api.requests import BULK_LIMIT
from orchestrator.db import listing
from orchestrator.db.session import Database
from orchestrator.errors import Overloaded
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from tests.api import Api, assert_problem, serving

TASKS = "/api/v1/tasks"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def api(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    async with serving(settings, database, streams) as found:
        yield found


async def test_what_is_not_there_and_what_is_not_for_this_method(api: Api):
    """Starlette's own answers are problems too."""
    assert_problem(await api.client.get("/api/v1/nothing"), 404, "not_found")
    assert_problem(await api.client.get(f"{TASKS}/"), 404, "not_found")

    wrong_method = await api.client.put(TASKS, json={})

    assert_problem(wrong_method, 405, "method_not_allowed")
    assert "allow" in wrong_method.headers


async def test_an_unknown_query_parameter_is_told_the_near_one(api: Api):
    """A filter that is misspelt must not quietly list everything."""
    body = assert_problem(await api.client.get(TASKS, params={"agnet": "echo"}), 400)

    assert "did you mean 'agent'" in body["detail"]
    assert_problem(await api.client.get("/api/v1/agents", params={"x": 1}), 400)
    assert_problem(await api.client.post(TASKS, params={"wait": 1}, json={}), 400)


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 201}, {"limit": "x"}, {"state": "done"}, {"since": "soon"},
     {"agent": "a\x00b"}, {"since": "0001-01-01T00:00:00+14:00"}],
)  # fmt: skip
async def test_a_query_parameter_out_of_range_is_named(api: Api, params: dict[str, Any]):
    """422 with its place."""
    body = assert_problem(await api.client.get(TASKS, params=params), 422, "invalid_request")

    assert body["errors"][0]["pointer"] == f"/query/{next(iter(params))}"


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"",
        b"nul",
        b"\xff\xfe",
        b'{"agent": NaN}',
        b'{"agent": "anything", "input": {"x": 1e400}}',
        b'"\\ud800"',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"1" * 5_000,
    ],
    ids=[
        "open", "empty", "word", "utf16", "nan", "infinite", "surrogate", "deep", "deeper", "long",
    ],
)  # fmt: skip
async def test_a_body_that_is_no_json_is_refused(api: Api, raw: bytes):
    """4xx whatever the bytes; none of them costs a stack or a 500."""
    for path in (TASKS, f"{TASKS}/bulk", "/api/v1/alerts"):
        answer = await api.client.post(path, content=raw, headers=JSON)
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert_problem(answer, answer.status_code)


async def test_a_body_as_deep_as_the_parser_lets_through_is_accepted(api: Api):
    """What passes the door passes the digest, the row and the entry as well."""
    deep: Any = {}
    for _ in range(190):
        deep = {"x": deep}

    answer = await api.client.post(TASKS, json={"agent": "anything", "input": deep})

    assert answer.status_code == 202, answer.text
    assert (await api.client.get(f"{TASKS}/{answer.json()['id']}")).json()["input"] == deep


async def test_nul_and_what_is_no_character_do_no_harm(api: Api):
    """Postgres has no NUL; the record shows a replacement."""
    answer = await api.client.post(
        TASKS, json={"agent": "anything", "input": {"a\x00": "b\x00\uffff"}}
    )

    assert answer.status_code == 202
    task = (await api.client.get(f"{TASKS}/{answer.json()['id']}")).json()
    assert task["input"] == {"a\ufffd": "b\ufffd\uffff"}


async def test_a_body_over_the_limit_is_refused_before_it_is_read_to_the_end(api: Api):
    """By its announced length, and by counting where it announces none."""
    limit = api.parts.settings.max_payload
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 100 * limit:
            read += 65_536
            yield b" " * 65_536

    for content in (b" " * (limit + 1), endless()):
        answer = await api.client.post(TASKS, content=content, headers=JSON)
        assert_problem(answer, 413, "payload_too_large")
    assert_problem(
        await api.client.post(f"{TASKS}/bulk", content=b" " * (BULK_LIMIT + 1), headers=JSON), 413
    )


async def test_a_task_over_the_limit_of_a_message_is_refused_in_bulk_too(api: Api):
    """The body may be large, each message may not."""
    large = {"agent": "anything", "input": {"x": "y" * api.parts.settings.max_payload}}

    answer = await api.client.post(f"{TASKS}/bulk", json=[large])

    assert_problem(answer, 413, "payload_too_large")


async def test_a_body_of_another_type_is_told_so(api: Api):
    """What curl -d sends by default."""
    answer = await api.client.post(TASKS, data={"agent": "echo"})

    body = assert_problem(answer, 415, "unsupported_media_type")
    assert "application/json" in body["detail"]


async def test_a_fault_of_ours_shows_nothing_of_the_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The log has the stack under the request id that the answer carries."""

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("password is hunter2")

    monkeypatch.setattr(listing, "tasks", broken)
    with caplog.at_level(logging.ERROR):
        answer = await api.client.get(TASKS, headers={"X-Request-ID": "case-7"})

    body = assert_problem(answer, 500, "internal_error")
    assert body["request_id"] == "case-7"
    assert "hunter2" not in answer.text
    (record,) = [each for each in caplog.records if each.__dict__.get("event") == "http.failed"]
    assert record.__dict__["request_id"] == "case-7"
    assert "hunter2" in (record.exc_text or "")


async def test_a_request_id_that_could_forge_a_log_line_is_replaced(api: Api):
    """Ours is a UUID."""
    answer = await api.client.get(TASKS, headers=[(b"x-request-id", b"a b\tc")])

    assert len(answer.headers["x-request-id"]) == 36


async def test_overload_says_when_to_come_back(api: Api, monkeypatch: pytest.MonkeyPatch):
    """P8: 429 and Retry-After."""

    async def full(*_: Any, **__: Any) -> None:
        raise Overloaded("Redis uses 71% of its memory", retry_after=10)

    monkeypatch.setattr(api.parts.submitter, "submit_many", full)
    answer = await api.client.post(TASKS, json={"agent": "echo", "input": {"text": "x"}})

    body = assert_problem(answer, 429, "overloaded")
    assert body["retryable"]
    assert answer.headers["retry-after"] == "10"


async def test_a_cursor_of_other_filters_or_none_of_ours_is_refused(api: Api):
    """400 rather than a page of something else."""
    for _ in range(3):
        await api.submit()
    cursor = (await api.client.get(TASKS, params={"limit": 1})).json()["next_cursor"]

    other = await api.client.get(TASKS, params={"cursor": cursor, "agent": "echo"})
    assert "other filters" in assert_problem(other, 400, "invalid_cursor")["detail"]
    for forged in ("x", "bm90IGpzb24", "W10", "WzEsMiwzXQ", "\u00e4", json.dumps([1])):
        answer = await api.client.get(TASKS, params={"cursor": forged})
        assert_problem(answer, 400, "invalid_cursor")
