"""The scripted model provider: what a client gets, what it may get wrong, and what is counted."""

import asyncio
import json
import re
import sys
from hashlib import sha256

import httpx2
import pytest

from orchestrator.testing.__main__ import main
from orchestrator.testing.provider import (
    Answer,
    Call,
    ContextTooLong,
    Disconnect,
    Hang,
    Malformed,
    Outage,
    RateLimit,
    Refused,
    Request,
    ScriptedProvider,
    Status,
    UnknownModel,
    WrongKey,
)
from tests.support import wait_until

HELLO = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
FINAL = {"type": "function", "function": {"name": "final_result", "parameters": {}}}
CALLED = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


async def post(provider: ScriptedProvider, body=HELLO, *, key="right", **said) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=provider.url, headers=headers) as client:
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await client.post("/chat/completions", **sent, **said)


async def test_a_list_is_replied_in_turn_and_then_refused():
    """What was not scripted is no answer."""
    async with ScriptedProvider([Answer("one", input_tokens=5), Answer("two")]) as provider:
        first, second, third = [await post(provider) for _ in range(3)]

    assert first.json()["choices"][0]["message"] == {"role": "assistant", "content": "one"}
    assert first.json()["usage"]["prompt_tokens"] == 5
    assert second.json()["choices"][0]["message"]["content"] == "two"
    assert third.status_code == 400
    assert "its script of 2 replies is used up" in third.json()["error"]["message"]


async def test_the_count_is_of_what_was_sent_whole():
    """Tokens of an answer that ended in the middle are not in it; each status is."""
    whole = Answer(calls=[Call("look")], input_tokens=100, output_tokens=10, cached_tokens=40)
    script = [whole, Disconnect(whole), Status(503), Malformed("{"), Disconnect()]
    async with ScriptedProvider(script) as provider:
        for _ in script:
            try:
                await post(provider)
            except httpx2.RemoteProtocolError:
                continue

    count = provider.count
    assert (count.requests, count.answers, count.tool_calls) == (5, 1, 1)
    assert (count.input_tokens, count.output_tokens, count.cached_tokens) == (100, 10, 40)
    assert count.by_status == {"200": 2, "503": 1, "closed": 2}
    assert [each.status for each in provider.seen] == [200, None, 503, 200, None]


async def test_a_client_that_leaves_a_hang_is_not_answered():
    """The hang ends with it, not after its time."""
    async with ScriptedProvider(Hang(3600, then=Answer("late"))) as provider:
        with pytest.raises(httpx2.ReadTimeout):
            await post(provider, timeout=0.1)
        await wait_until(lambda: provider.seen, what="the request is over")

    assert provider.count.answers == 0
    assert provider.count.by_status == {"closed": 1}


async def test_the_server_ends_with_a_hang_under_way():
    """Nobody waits for an hour."""
    async with ScriptedProvider(Hang(3600)) as provider:
        asking = asyncio.create_task(post(provider, timeout=None))
        await wait_until(lambda: provider.under_way, what="the request has come")
    with pytest.raises(httpx2.RemoteProtocolError):
        await asking


async def test_a_function_sees_the_request():
    """Its number, its key's fingerprint, its messages and tools; never the key when printed."""

    def script(request: Request) -> Answer:
        assert "canary" not in repr(request)
        return Answer(f"{request.number} {request.texts('user')} {list(request.tools)}")

    async with ScriptedProvider(script) as provider:
        found = await post(provider, {**HELLO, "tools": [LOOK]}, key="canary")

    assert found.json()["choices"][0]["message"]["content"] == "1 ['hello'] ['look']"
    assert provider.requests[0].key == sha256(b"canary").hexdigest()[:16]


async def test_a_function_that_fails_fails_the_test():
    """An assertion in a script is one of the test's own; so is a reply that is none."""

    def script(request: Request) -> Answer:
        assert request.model == "another"

    with pytest.raises(AssertionError):
        async with ScriptedProvider(script) as provider:
            found = await post(provider)
    assert found.status_code == 500

    with pytest.raises(TypeError, match="the script gave 'hello', which is none of Answer"):
        async with ScriptedProvider(lambda _: "hello") as provider:
            await post(provider)


async def test_an_output_is_given_as_the_request_asks_for_it():
    """To the output tool where there is one, else as text; a tool call it is in no count."""
    async with ScriptedProvider(Answer(output={"n": 1})) as provider:
        by_tool = await post(provider, {**HELLO, "tools": [LOOK, FINAL]})
        by_text = await post(provider)

    [call] = by_tool.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "final_result", "arguments": '{"n": 1}'}
    assert by_text.json()["choices"][0]["message"]["content"] == '{"n": 1}'
    assert provider.count.tool_calls == 0


async def test_an_answer_ends_where_the_client_lets_it_end():
    """In the middle, with the tokens that it may have."""
    script = [Answer("x" * 400), Answer(calls=[Call("look", {"at": "y" * 400})])]
    async with ScriptedProvider(script) as provider:
        text, call = [await post(provider, {**HELLO, "max_tokens": 10}) for _ in script]

    [said], [asked] = text.json()["choices"], call.json()["choices"]
    assert (said["finish_reason"], said["message"]["content"]) == ("length", "x" * 40)
    assert asked["finish_reason"] == "length"
    assert asked["message"]["tool_calls"][0]["function"]["arguments"].endswith("yyy")
    assert provider.count.output_tokens == 20


async def test_an_answer_can_be_streamed():
    """In one piece, with its usage."""
    async with ScriptedProvider(Answer("hello")) as provider:
        found = await post(provider, {**HELLO, "stream": True})

    lines = found.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert chunks[0]["choices"][0]["delta"]["content"] == "hello"
    assert chunks[-1]["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "the body is no JSON"),
        (b"[]", "the body: Input should be"),
        ({"messages": HELLO["messages"]}, "model: Field required"),
        ({"model": "any", "messages": []}, "messages: List should have at least 1 item"),
        ({"model": "any", "messages": [{"role": "wizard"}]}, "messages.0.role: Input should be"),
        ({**HELLO, "tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0"),
        (
            {"model": "any", "messages": [{"role": "tool", "tool_call_id": "7", "content": ""}]},
            "'7' is none that waits",
        ),
        (
            {"model": "any", "messages": [{"role": "assistant", "tool_calls": [CALLED]}]},
            "the calls 1 have no answer",
        ),
    ],
)
async def test_what_a_client_gets_wrong_is_said(body, told):
    """As a strict provider refuses it, and the script does not move on."""
    async with ScriptedProvider([Answer("still the first")]) as provider:
        refused = await post(provider, body)
        after = await post(provider)

    assert refused.status_code == 400
    assert told in refused.json()["error"]["message"]
    assert after.status_code == 200


async def test_another_api_of_the_same_provider_is_named():
    """pydantic-ai's `openai:` speaks to /v1/responses."""
    async with (
        ScriptedProvider(Answer("")) as provider,
        httpx2.AsyncClient(base_url=provider.url) as client,
    ):
        responses = await client.post("/responses", json={})
        models = await client.get("/models")
        count = await client.get(provider.url.removesuffix("/v1") + "/count")

    assert "openai-chat:NAME" in responses.json()["error"]["message"]
    assert models.json()["data"][0]["id"] == "scripted"
    assert count.json()["requests"] == 0


async def test_keys_models_and_contexts_are_refused_in_openais_form():
    """With the codes that clients look for; the key is shown by those that echo it."""
    rules = [WrongKey(["right"], echo=True), UnknownModel(["any"]), ContextTooLong(30)]
    long = {"model": "any", "messages": [{"role": "user", "content": "x" * 200}]}
    async with ScriptedProvider(Answer("fine"), rules=rules) as provider:
        found = [
            await post(provider),
            await post(provider, key="wrong-canary"),
            await post(provider, {**HELLO, "model": "other"}),
            await post(provider, long),
        ]

    assert [each.status_code for each in found] == [200, 401, 404, 400]
    errors = [each.json()["error"] for each in found[1:]]
    assert [each["code"] for each in errors] == [
        "invalid_api_key",
        "model_not_found",
        "context_length_exceeded",
    ]
    assert "wrong-canary" in errors[0]["message"]


async def test_a_refusal_is_an_answer_that_costs():
    """By the model in its own field, by the filter with nothing at all."""
    async with ScriptedProvider([Refused("No."), Refused(by="filter")]) as provider:
        by_model, by_filter = [(await post(provider)).json()["choices"][0] for _ in range(2)]

    assert (by_model["message"]["refusal"], by_model["finish_reason"]) == ("No.", "stop")
    assert (by_filter["message"]["content"], by_filter["finish_reason"]) == (None, "content_filter")
    assert provider.count.answers == 2


def times(rule, moments, key="a"):
    """The statuses that a rule gives at these moments, and what it said last."""
    check = rule.begin()
    found = [check(Request(1, at, key, HELLO)) for at in moments]
    return [reply.code if reply else 200 for reply, _ in found], found[-1]


def test_a_window_begins_anew_and_a_bucket_fills():
    """Two a second: the window gives two at once again, the bucket one after the other."""
    moments = [0, 0.1, 0.2, 0.4, 0.999, 1.0, 1.1, 1.2]
    window, (refusal, _) = times(RateLimit(requests=2, per=1), moments)
    bucket, _ = times(RateLimit(requests=2, per=1, kind="bucket"), [0, 0.1, 0.2, 0.4, 0.6, 0.7])

    assert window == [200, 200, 429, 429, 429, 200, 200, 429]
    assert refusal.retry_after == pytest.approx(0.8)
    assert bucket == [200, 200, 429, 429, 200, 429]


def test_a_limit_is_said_in_openais_headers_and_held_for_each_key():
    """Or not said at all."""
    rule = RateLimit(requests=1, per=90, retry_after=False, headers=True)
    check = rule.begin()
    _, first = check(Request(1, 0.0, "a", HELLO))
    refused, second = check(Request(2, 20.5, "a", HELLO))
    other, _ = check(Request(3, 20.5, "b", HELLO))

    assert first["x-ratelimit-reset-requests"] == "1m30s"
    assert second["x-ratelimit-remaining-requests"] == "0"
    assert second["x-ratelimit-reset-requests"] == "1m9.5s"
    assert (refused.code, refused.retry_after, other) == (429, None, None)


def test_an_outage_has_a_beginning_and_an_end():
    """By status or by a closed connection."""
    assert times(Outage(1, 2), [0.5, 1, 1.9, 2])[0] == [200, 503, 503, 200]
    assert times(Outage(1, 2, by=529), [1])[0] == [529]
    [reply, _] = Outage(0, 2, by="closed").begin()(Request(1, 1.0, None, HELLO))
    assert reply == Disconnect()


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (Answer, "needs text, calls or output"),
        (lambda: Answer("a", output=1), "neither text nor calls"),
        (lambda: Answer("a", input_tokens=1, cached_tokens=2), "cannot be more"),
        (lambda: Answer("a", output_tokens=-1), "output_tokens cannot be -1"),
        (lambda: Status(200), "400 to 599"),
        (lambda: Status(429, retry_after=-1), "retry_after cannot be"),
        (lambda: Hang(-1), "seconds cannot be -1"),
        (lambda: Refused(by="nobody"), "by 'model' or by 'filter'"),
        (lambda: RateLimit(requests=0, per=1), "at least one request"),
        (lambda: RateLimit(requests=1, per=1, kind="leaky"), "'window' or a 'bucket'"),
        (lambda: Outage(2, 1), "begins before it ends"),
        (lambda: WrongKey("key"), "WrongKey([key])"),
    ],
)
def test_a_value_that_means_nothing_is_refused(made, told):
    """Where it is written, not in the middle of a test."""
    with pytest.raises(ValueError, match=re.escape(told)):
        made()


@pytest.mark.parametrize("script", ["hello", 7, [Answer("fine"), "hello"]])
def test_a_script_that_is_none_is_refused(script):
    """With what it may be."""
    with pytest.raises(TypeError, match=r"a script is a reply|which is none of Answer"):
        ScriptedProvider(script)


async def test_the_command_serves_until_it_is_told_to_stop():
    """Its first line is where it listens, its last what it counted."""
    command = [sys.executable, "-m", "orchestrator.testing", "--text", "hello", "--rate", "1/60"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    url = json.loads(await process.stdout.readline())["url"]
    async with httpx2.AsyncClient() as client:
        statuses = [
            (await client.post(f"{url}/chat/completions", json=HELLO)).status_code for _ in range(2)
        ]
    process.terminate()
    told, _ = await process.communicate()

    assert statuses == [200, 429]
    assert json.loads(told)["by_status"] == {"200": 1, "429": 1}
    assert process.returncode == 0


@pytest.mark.parametrize("wrong", [["--rate", "60"], ["--outage", "soon"], ["--outage", "9:1"]])
def test_the_command_says_what_would_have_been_right(wrong, capsys):
    """Before it serves anything."""
    with pytest.raises(SystemExit):
        main(wrong)
    assert "such as" in capsys.readouterr().err
