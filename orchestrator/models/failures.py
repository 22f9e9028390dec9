"""What an error of pydantic-ai means: news to wait by, or the end of the attempt."""

from collections.abc import Callable, Sequence

from pydantic_ai import exceptions
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart

from orchestrator.model_failure import FailureKind, ModelFailed
from orchestrator.provider import Limited, Unavailable

RAW = 8_000  # characters of an answer that could not be used
SHOWN = 500  # characters of a provider's own words
GATEWAY = (502, 504)  # said by what stands before a provider that is away
Scrub = Callable[[str], str]


def meaning(
    error: exceptions.AgentRunError, *, model: str, scrub: Scrub
) -> Limited | Unavailable | ModelFailed:
    """News to wait by, or what to raise. `scrub` takes our keys out of a provider's words."""
    provider = model.partition(":")[0]
    status = getattr(error, "status_code", None)
    match error:
        case exceptions.ModelRateLimitError():
            return Limited(retry_after=error.retry_after)
        case exceptions.ModelUnavailableError():
            return Unavailable(retry_after=error.retry_after)
        case exceptions.ModelServerError() if status in GATEWAY:
            return Unavailable(retry_after=error.retry_after)
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
    match error:
        case exceptions.ModelTimeoutError() | exceptions.ModelRequestTimeout():
            return timed_out(model, str(error))
        case exceptions.ModelQuotaExceededError():
            kind, line = FailureKind.QUOTA_USED_UP, f"the account at {provider} is used up: {said}"
        case exceptions.ModelAuthenticationError():
            kind = FailureKind.KEY_REFUSED
            line = (
                f"{provider} refuses the key for {model}; set"
                f' AURORA_MODEL_KEYS=\'{{"{provider}": "..."}}\''
            )
        case exceptions.ModelNotFoundError():
            kind = FailureKind.MODEL_UNKNOWN
            line = (
                f"{provider} knows no model {model!r}; change AURORA_MODEL, or the model of the"
                f" pydantic-ai agent: {said}"
            )
        case exceptions.ModelContextWindowExceededError():
            kind = FailureKind.CONTEXT_TOO_LONG
            line = f"the messages are too long for {model}; shorten the prompt: {said}"
        case exceptions.ModelRequestRejectedError():
            kind, line = FailureKind.REQUEST_REFUSED, f"{provider} refuses the request: {said}"
        case exceptions.UnexpectedModelBehavior():
            return ModelFailed(
                FailureKind.MALFORMED_ANSWER, f"{model}: {scrub(error.message)}"[:SHOWN],
                answer=scrub(error.body or "")[:RAW],
            )  # fmt: skip
        case _:
            kind, line = FailureKind.PROVIDER_UNAVAILABLE, f"{provider} failed: {said}"
    return ModelFailed(kind, line)


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


def _words(error: exceptions.AgentRunError) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        body = inner.get("message", inner) if isinstance(inner, dict) else inner
    return str(body or error)[:SHOWN]
