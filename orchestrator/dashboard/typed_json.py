"""JSON that somebody typed into a form, by the rules of the wire."""

import json
from typing import Any

from pydantic_core import from_json


class NotJson(ValueError):
    """It is none that we take; says what would be."""


def value_of(text: str) -> Any:
    """What the text says. Raises NotJson."""
    try:
        found = from_json(text.encode("utf-8", "surrogatepass"), allow_inf_nan=False)
        # 1e400 is read as infinity, which JSON cannot say and Postgres cannot hold.
        json.dumps(found, allow_nan=False)
    except ValueError as error:
        raise NotJson(f"not JSON that we take: {error}") from error
    return found


def object_of(text: str) -> dict[str, Any]:
    """The object that the text is; nothing typed is an empty one. Raises NotJson."""
    found = value_of(text) if text.strip() else {}
    if not isinstance(found, dict):
        raise NotJson('a JSON object is needed, as in {"key": "value"}')
    return found
