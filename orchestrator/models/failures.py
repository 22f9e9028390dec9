"""What an error of pydantic-ai means: news to wait by, or the end of the attempt."""

from collections.abc import Callable, Sequence
from json import JSONDecodeError

from pydantic_ai import exceptions
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart

from orchestrator.model_failure import FailureKind, ModelFailed
from orchestrator.provider import Limited, Unavailable

RAW = 8_000  # characters of an answer that could not be used
SHOWN = 500  # characters of a provider's own words
GATEWAY = (502, 504)  # said by what stands before a provider that is away
SLOW = 408  # the server's own timeout, of this one request
TOO_LARGE = 413
FILTERED = "content_filter"  # a code of OpenAI's protocol
Scrub = Callable[[str], str]


def meaning(
    error: exceptions.AgentRunError, *, model: str, scrub: Scrub
) -> Limited | Unavailable | ModelFailed:
    """News to wait by, or what to raise. `scrub` takes our keys out of a provider's words."""
    provider = model.partition(":")[0]
    status = getattr(error, "status_code", None)
    match error:
        case exceptions.ModelRateLimitError():
            return Limited(retry_after=_retry_after(error))
        case exceptions.ModelUnavailableError():
            return Unavailable(retry_after=_retry_after(error))
        case exceptions.ModelServerError() if status in GATEWAY:
            return Unavailable(retry_after=_retry_after(error))
        case exceptions.ModelConnectionError() if not _was_slow(error):
            return Unavailable()
    return _ending(error, model=model, provider=provider, scrub=scrub)


def _was_slow(error: exceptions.ModelConnectionError) -> bool:
    """It was reached, and did not answer in time."""
    reached = error.phase not in ("connect", "pool")
    return reached and isinstance(error, exceptions.ModelTimeoutError)


def _ending(
    error: exceptions.AgentRunError, *, model: str, provider: str, scrub: Scrub
) -> ModelFailed:
    said = scrub(_words(error))
    code, status = getattr(error, "provider_error_code", None), getattr(error, "status_code", None)
    match error:
        case exceptions.ModelTimeoutError() | exceptions.ModelRequestTimeout():
            return timed_out(model, str(error))
        case exceptions.ModelAPIError() if status == SLOW:
            return timed_out(model, said)
        case exceptions.ModelAPIError() if code == FILTERED:
            refused = f"{provider} refused to answer: {said}"
            return ModelFailed(FailureKind.ANSWER_REFUSED, refused, answer=said)
        case exceptions.ModelAPIError(__cause__=JSONDecodeError() as cause):
            return no_answer(model, error.message, raw=scrub(cause.doc))
        case exceptions.UnexpectedModelBehavior():
            return no_answer(model, scrub(error.message), raw=scrub(error.body or ""))
    kind, line = _of_request(error, model=model, provider=provider, said=said)
    return ModelFailed(kind, line)


def _of_request(
    error: exceptions.AgentRunError, *, model: str, provider: str, said: str
) -> tuple[FailureKind, str]:
    """What the provider has against the request, and the line to change."""
    too_large = getattr(error, "status_code", None) == TOO_LARGE
    match error:
        case exceptions.ModelQuotaExceededError():
            return FailureKind.QUOTA_USED_UP, f"the account at {provider} is used up: {said}"
        case exceptions.ModelAuthenticationError():
            line = f'set AURORA_MODEL_KEYS=\'{{"{provider}": "..."}}\''
            return FailureKind.KEY_REFUSED, f"{provider} refuses the key for {model}; {line}"
        case exceptions.ModelNotFoundError():
            return FailureKind.MODEL_UNKNOWN, (
                f"{provider} knows no model {model!r}; change AURORA_MODEL or the model of the"
                " pydantic-ai agent, or AURORA_MODEL_URLS (a server that speaks Chat Completions"
                f" only is openai-chat:...): {said}"
            )
        case exceptions.ModelAPIError() if too_large or _is_overflow(error):
            line = f"the messages are too long for {model}; shorten the prompt: {said}"
            return FailureKind.CONTEXT_TOO_LONG, line
        case exceptions.ModelRequestRejectedError():
            return FailureKind.REQUEST_REFUSED, f"{provider} refuses the request: {said}"
        case _:
            return FailureKind.PROVIDER_UNAVAILABLE, f"{provider} failed: {said}"


def no_answer(model: str, how: str, *, raw: str) -> ModelFailed:
    """A response that is none of the provider's protocol."""
    return ModelFailed(
        FailureKind.MALFORMED_ANSWER, f"{model} sent what is no answer: {how}"[:SHOWN],
        answer=raw[:RAW],
    )  # fmt: skip


def timed_out(model: str, how: str) -> ModelFailed:
    """A request that was not answered in time."""
    return ModelFailed(FailureKind.TIMEOUT, f"{model} did not answer: {how} (AURORA_MODEL_TIMEOUT)")


def unusable(error: exceptions.UnexpectedModelBehavior, *, model: str, raw: str) -> ModelFailed:
    """An answer that came, and that the agent's output type or the provider's filter refuses."""
    if isinstance(error, exceptions.ContentFilterError):
        return ModelFailed(
            FailureKind.ANSWER_REFUSED, f"{model} refused to answer: {error.message}"[:SHOWN],
            answer=raw,
        )  # fmt: skip
    return ModelFailed(
        FailureKind.MALFORMED_ANSWER, f"{model}: {error.message}"[:SHOWN], answer=raw
    )


def raw_answer(messages: Sequence[ModelMessage]) -> str:
    """What the model said last, as text."""
    last = next((each for each in reversed(messages) if isinstance(each, ModelResponse)), None)
    said = []
    for part in last.parts if last else ():
        if isinstance(part, TextPart):
            said.append(part.content)
        elif isinstance(part, ToolCallPart):
            said.append(f"{part.tool_name}({part.args_as_json_str()})")
    return "\n".join(said)[:RAW]


def _is_overflow(error: exceptions.AgentRunError) -> bool:
    return isinstance(error, exceptions.ModelContextWindowExceededError)


def _retry_after(error: exceptions.ModelAPIError) -> float | None:
    """Seconds; also of "1.5", which the standard does not know and servers send."""
    if error.retry_after is not None:
        return error.retry_after
    try:
        return float((getattr(error, "headers", None) or {})["retry-after"])
    except (KeyError, ValueError):
        return None


def _words(error: exceptions.AgentRunError) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        body = inner.get("message", inner) if isinstance(inner, dict) else inner
    return str(body or error)[:SHOWN]
