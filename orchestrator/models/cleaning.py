"""Takes our keys out of what a model answers, before its agent, the record or a trace sees it.

A provider, or a proxy before it, may say the key that it was asked with: in an error, which
`failures` words anew, and in an answer, which becomes an output, a tool's argument, a log line.
"""

from collections.abc import Iterable

from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse

from orchestrator.models.failures import Scrub
from orchestrator.redaction import REDACTED

SHORTEST_KEY = 8  # characters; less is no secret, and would be found in every other word


def scrubber(keys: Iterable[str]) -> Scrub:
    """What takes these keys out of a text."""
    secrets = [each for each in keys if len(each) >= SHORTEST_KEY]

    def scrub(text: str) -> str:
        for each in secrets:
            text = text.replace(each, REDACTED)
        return text

    return scrub


def cleaned(response: ModelResponse, scrub: Scrub) -> ModelResponse:
    """The same response where it says no key; else one that says [redacted] in its place."""
    said = ModelMessagesTypeAdapter.dump_json([response]).decode()
    if (clean := scrub(said)) == said:
        return response
    [found] = ModelMessagesTypeAdapter.validate_json(clean)
    if not isinstance(found, ModelResponse):  # its kind stands in it
        raise TypeError(f"a response became a {type(found).__name__}")
    return found
