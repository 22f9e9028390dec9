"""One request to the scripted provider, read and checked as a strict provider would."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

OUTPUT_TOOL = "final_result"  # pydantic-ai's name for it, with a suffix where there are several
CHARACTERS_PER_TOKEN = 4  # the rule of thumb for English; the count need not be any tokenizer's


class InvalidRequest(Exception):
    """A client sent what a provider would refuse; the text says what would have been right."""


@dataclass(frozen=True, slots=True)
class Request:
    """One `POST /v1/chat/completions`, as a script sees it."""

    number: int  # of this server's, from 1
    at: float  # seconds since the server's start
    key: str | None  # the first 16 digits of the key's SHA-256; None: no key was sent
    body: Mapping[str, Any]
    secret: str = field(default="", repr=False)  # the key itself, for those who echo it

    @property
    def model(self) -> str:
        """As the client named it."""
        return str(self.body["model"])

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The conversation so far, in OpenAI's form."""
        return self.body["messages"]  # type: ignore[no-any-return]

    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]:
        """Each tool that was offered, with the JSON schema of its arguments."""
        return {
            each["function"]["name"]: each["function"].get("parameters", {})
            for each in self.body.get("tools") or ()
        }

    @property
    def output_tool(self) -> str | None:
        """The tool that takes the agent's output, where it has one."""
        return next((name for name in self.tools if name.startswith(OUTPUT_TOOL)), None)

    @property
    def output_schema(self) -> Mapping[str, Any] | None:
        """The JSON schema of the agent's output, where the request says it."""
        if self.output_tool is not None:
            return self.tools[self.output_tool]
        form = self.body.get("response_format") or {}
        found = form.get("json_schema", {}).get("schema")
        return found if isinstance(found, dict) else None

    @property
    def longest_answer(self) -> int | None:
        """Tokens that the client lets an answer have."""
        found = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        return found if isinstance(found, int) else None

    @property
    def turns(self) -> int:
        """How many answers of the model are in the conversation: 0 for its first request."""
        return sum(each["role"] == "assistant" for each in self.messages)

    def texts(self, *roles: str) -> list[str]:
        """What the messages say, of these roles or of all."""
        return [
            text
            for each in self.messages
            if not roles or each["role"] in roles
            for text in _texts(each.get("content"))
        ]

    @property
    def tokens(self) -> int:
        """About what a tokenizer would count: of the messages and of the tools."""
        told = json.dumps([self.body["messages"], self.body.get("tools")], ensure_ascii=False)
        return tokens_of(told)


def tokens_of(text: str) -> int:
    """One for every four characters begun."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def read(raw: bytes, *, number: int, at: float, authorization: str | None) -> Request:
    """A request that a strict provider would take. Raises InvalidRequest."""
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from error
    try:
        asked = _Body.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise InvalidRequest(f"{place}: {first['msg']}") from error
    _check_tool_calls(asked.messages)
    key = _bearer(authorization)
    return Request(number, at, fingerprint(key), body, key)


def fingerprint(key: str) -> str | None:
    """Which key it was, without the key. None where there is none."""
    return hashlib.sha256(key.encode()).hexdigest()[:16] if key else None


def _bearer(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Called(_Loose):
    name: str
    arguments: str


class _ToolCall(_Loose):
    id: str
    function: _Called


class _Message(_Loose):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None


class _Function(_Loose):
    # OpenAI refuses a request with any other name.
    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    parameters: dict[str, Any] = Field(default_factory=dict)


class _Tool(_Loose):
    type: Literal["function"]
    function: _Function


class _Body(_Loose):
    model: Annotated[str, StringConstraints(min_length=1)]
    messages: list[_Message] = Field(min_length=1)
    tools: list[_Tool] | None = None
    stream: bool | None = None


def _check_tool_calls(messages: Sequence[_Message]) -> None:
    """Each call of a tool is answered once, at once; nothing else is."""
    waiting: set[str] = set()
    for at, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                raise InvalidRequest(
                    f"messages.{at}: a tool message answers a call of the assistant's message"
                    f" before it, and {message.tool_call_id!r} is none that waits"
                )
            waiting.discard(message.tool_call_id)
            continue
        if waiting:
            raise InvalidRequest(
                f"messages.{at}: the calls {', '.join(sorted(waiting))} of the assistant's message"
                " before it have no answer; each needs a tool message with its tool_call_id"
            )
        waiting = {each.id for each in message.tool_calls or ()}
    if waiting:
        raise InvalidRequest(f"messages: the calls {', '.join(sorted(waiting))} have no answer")


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if isinstance(part.get("text"), str))
