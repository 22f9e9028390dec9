"""The mutants that were chosen run beside these tests, which wait for servers as they do."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _mutants_meanwhile(mutants: object) -> None:
    """Start them with the first of these tests."""
