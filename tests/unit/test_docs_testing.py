"""The tests on the page about testing are tests, and pass."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import models

PAGE = Path(__file__).parent.parent.parent / "docs" / "testing.md"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """Its examples, one after the other, as a reader copies them into one file."""
    space: dict[str, Any] = {"__name__": "page"}
    before = models.ALLOW_MODEL_REQUESTS
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, space)  # noqa: S102 - our own page
    yield space
    models.ALLOW_MODEL_REQUESTS = before


NAMES = re.findall(r"^async def (test_\w+)", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
async def test_an_example_of_the_page_passes(page, name):
    """With no key and no network: the page forbids real requests in its first example."""
    assert models.ALLOW_MODEL_REQUESTS is False
    await page[name]()


def test_the_page_names_every_reply_and_rule():
    """A new one gets its line."""
    from orchestrator.testing import provider

    kinds = set(provider.__all__) - {"Count", "Reply", "Request", "Script", "Seen", "Call"}
    assert [name for name in kinds if f"`{name}" not in PAGE.read_text()] == []
