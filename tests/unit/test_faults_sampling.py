"""What the soak calls growth."""

import pytest

from tests.faults.sampling import grown, quarters


def _samples(name, values):
    return [(float(second), {name: value}) for second, value in enumerate(values)]


def test_what_has_warmed_up_and_stays_does_not_grow():
    """The first quarter is no measure, and single samples mean nothing."""
    values = [50.0] * 20 + [80.0] * 79 + [800.0]

    assert grown(_samples("worker-0 rss", values)) == {}


def test_an_even_leak_grows():
    """From nothing on, whatever the resource."""
    found = grown(_samples("redis keys", [float(10 * second) for second in range(100)]))

    assert found == {"redis keys": (pytest.approx(370.0, abs=10), pytest.approx(870.0, abs=10))}


def test_a_leak_on_top_of_what_is_needed_grows():
    """80 MB that become 95 MB."""
    values = [80.0 + second * 0.2 for second in range(100)]

    assert list(grown(_samples("worker-0 rss", values))) == ["worker-0 rss"]


def test_of_what_was_hardly_ever_seen_nothing_is_said():
    """It is missing from the quarters, which the soak tells as wrong."""
    assert quarters(_samples("redis keys", [1.0] * 12)) == {}
    assert quarters([]) == {}
