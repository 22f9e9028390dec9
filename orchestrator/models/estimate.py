"""What the next call takes at least, reckoned before it is made."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

import genai_prices
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    ToolReturnPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.usage import RequestUsage
from pydantic_core import to_json

# Of UTF-8 a token. English has four, code and JSON about three; less would stop what still fits.
BYTES = 3


def input_tokens_of(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> int:
    """Tokens that the next request brings.

    After an answer that told its usage it is what that took, in and out, and what was added since;
    before one, the length of the text.
    """
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if isinstance(message, ModelResponse) and message.usage.input_tokens:
            so_far = message.usage.input_tokens + message.usage.output_tokens
            return so_far + _tokens(_said(messages[index + 1 :]))
    tools = [*parameters.function_tools, *parameters.output_tools]
    schemas = [to_json(each.parameters_json_schema) for each in tools]
    if parameters.output_object is not None:
        schemas.append(to_json(parameters.output_object.json_schema))
    return _tokens([*_said(messages), *schemas])


def dollars_of(tokens_in: int, tokens_out: int, *, model: Model) -> Decimal | None:
    """What that many tokens cost at least; None where no price is known."""
    usage = RequestUsage(input_tokens=tokens_in, output_tokens=tokens_out)
    try:
        found = genai_prices.calc_price(usage, model.model_name, provider_id=model.system)
    except (LookupError, ValueError):
        return None
    return Decimal(found.total_price)


def _said(messages: Iterable[ModelMessage]) -> Iterable[bytes]:
    for message in messages:
        if isinstance(message, ModelRequest) and message.instructions:
            yield message.instructions.encode()
        for part in message.parts:
            match part:
                case ToolReturnPart():
                    yield part.model_response_str().encode()
                case RetryPromptPart():
                    yield part.model_response().encode()
                case _:
                    content = getattr(part, "content", None) or getattr(part, "args", None)
                    yield to_json(content, serialize_unknown=True)


def _tokens(texts: Iterable[bytes]) -> int:
    return sum(map(len, texts)) // BYTES
