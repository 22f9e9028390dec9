"""Replies of the scripted provider in OpenAI's form: status, headers and body."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from orchestrator.testing.replies import NO_HEADERS, Answer, Malformed, Refused, Status
from orchestrator.testing.request import Request, tokens_of

# What OpenAI calls each status in `error.type` and `error.code`.
_ERRORS: Mapping[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    408: ("timeout", None),
    429: ("requests", "rate_limit_exceeded"),
    503: ("service_unavailable", None),
    529: ("overloaded_error", None),
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one answer counts for, in and out."""

    input: int = 0
    output: int = 0
    cached: int = 0
    tool_calls: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """A reply ready to be sent."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    tokens: Tokens | None = None  # of an answer


def error(status: Status) -> Sent:
    """An error with its Retry-After."""
    kind, code = _ERRORS.get(status.code, ("server_error", None))
    body = status.body
    if body is None:
        told = status.message or f"scripted: {status.code}"
        code = status.error_code or code
        body = {"error": {"message": told, "type": kind, "param": None, "code": code}}
    raw = body if isinstance(body, str) else json.dumps(body)
    content_type = "text/plain" if isinstance(body, str) else "application/json"
    headers = {"content-type": content_type, **retry_after(status.retry_after), **status.headers}
    return Sent(status.code, raw.encode(), headers)


def retry_after(value: float | datetime | None) -> Mapping[str, str]:
    """The header; the standard has whole seconds, or a date."""
    if value is None:
        return NO_HEADERS
    if isinstance(value, datetime):
        return {"retry-after": format_datetime(value.astimezone(UTC), usegmt=True)}
    return {"retry-after": str(math.ceil(value))}


def malformed(reply: Malformed) -> Sent:
    """As it is."""
    return Sent(200, reply.body.encode(), {"content-type": reply.content_type})


def refused(reply: Refused, request: Request) -> Sent:
    """A refusal in the message, or an answer that the filter emptied."""
    by_model = reply.by == "model"
    message = {"role": "assistant", "content": None, "refusal": reply.text if by_model else None}
    tokens = Tokens(
        request.tokens if reply.input_tokens is None else reply.input_tokens,
        tokens_of(reply.text) if reply.output_tokens is None else reply.output_tokens,
    )
    return _completion(request, message, "stop" if by_model else "content_filter", tokens)


def answer(reply: Answer, request: Request) -> Sent:
    """A completion: text, or calls of tools, or the output as the request wants it."""
    text, asked = reply.text, [(each.tool, each.text) for each in reply.calls]
    if reply.output is not None:
        if request.output_tool is not None:
            asked = [(request.output_tool, json.dumps(reply.output))]
        else:
            text = json.dumps(reply.output)
    calls = [
        {
            "id": f"call_{request.number}_{at}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for at, (name, arguments) in enumerate(asked)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = calls
    told = (text or "") + "".join(name + arguments for name, arguments in asked)
    written = tokens_of(told) if reply.output_tokens is None else reply.output_tokens
    tokens = Tokens(
        max(request.tokens, reply.cached_tokens)
        if reply.input_tokens is None
        else reply.input_tokens,
        written,
        reply.cached_tokens,
        sum(name != request.output_tool for name, _ in asked),
    )
    most = request.longest_answer
    if most is not None and written > most:
        _cut(message, most / written)
        return _completion(request, message, "length", replace(tokens, output=most))
    return _completion(request, message, "tool_calls" if calls else "stop", tokens)


def _cut(message: dict[str, Any], share: float) -> None:
    """As a model ends that may write no more: in the middle."""
    if message["content"]:
        message["content"] = message["content"][: int(len(message["content"]) * share)]
    for call in message.get("tool_calls", ()):
        written = call["function"]["arguments"]
        call["function"]["arguments"] = written[: int(len(written) * share)]


def _completion(
    request: Request, message: Mapping[str, Any], finish_reason: str, tokens: Tokens
) -> Sent:
    whole = {
        "id": f"chatcmpl-scripted-{request.number}",
        "object": "chat.completion",
        "created": int(datetime.now(UTC).timestamp()),
        "model": request.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": _usage(tokens),
    }
    if request.body.get("stream"):
        return Sent(200, _streamed(whole), {"content-type": "text/event-stream"}, tokens)
    body = json.dumps(whole).encode()
    return Sent(200, body, {"content-type": "application/json"}, tokens)


def _usage(tokens: Tokens) -> Mapping[str, Any]:
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
    }


def _streamed(whole: Mapping[str, Any]) -> bytes:
    """The same as server-sent events: the message in one piece, its end, the usage."""
    [choice] = whole["choices"]
    calls = choice["message"].get("tool_calls", ())
    delta = dict(choice["message"])
    if calls:
        delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
    head = {name: whole[name] for name in ("id", "created", "model")}
    head["object"] = "chat.completion.chunk"
    pieces = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
        {"choices": [], "usage": whole["usage"]},
    ]
    lines = [json.dumps({**head, **piece}) for piece in pieces]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
