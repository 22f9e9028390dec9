"""The benchmark's own arithmetic: statistics, ratios, goals, the table and the drawing."""

import io
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.benchmarks import plot, report
from tests.benchmarks.figures import (
    Goal,
    Sample,
    figures_of,
    paired_ratio,
    percentile,
    shown,
)

SAMPLES = [
    Sample("W2", "aurora & co", 50.0, "tasks/s", of="W2 raw loop"),
    Sample("W2", "raw loop", 100.0, "tasks/s", of="W2 raw loop"),
    Sample("W2", "aurora & co", 20.0, "tasks/s", of="W2 raw loop"),
    Sample("W2", "raw loop", 25.0, "tasks/s", of="W2 raw loop"),
    Sample("W1", "bulk", 12_345.6, "tasks/s", of="W1 not measured"),
]


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from((0.5, 0.95, 0.99)))
def test_a_percentile_is_a_value_that_enough_others_do_not_exceed(values, share):
    """Nearest rank: no interpolation between two latencies that both happened."""
    found = percentile(values, share)

    assert found in values
    assert sum(each <= found for each in values) >= share * len(values) - 1e-6


def test_percentiles_of_a_hundred():
    """p50 of 1 to 100 is 50, p99 is 99."""
    values = [float(n) for n in range(100, 0, -1)]

    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]


def test_a_ratio_compares_within_a_round():
    """Both rounds have their own ratio, and the median of the ratios counts."""
    assert paired_ratio([50.0, 20.0, 10.0], [100.0, 25.0, 10.0]) == 0.8
    assert paired_ratio([50.0], [100.0, 300.0]) == 0.25  # rounds that failed: the medians


def test_samples_become_figures():
    """By name, with medians; what stands against itself or nothing has no ratio."""
    figures = figures_of(SAMPLES)

    assert list(figures) == ["W1 bulk", "W2 aurora & co", "W2 raw loop"]
    assert figures["W2 aurora & co"].median == 35.0
    assert figures["W2 aurora & co"].ratio == pytest.approx(0.65)
    assert figures["W2 raw loop"].ratio is None
    assert figures["W1 bulk"].ratio is None


def test_a_goal_knows_its_side():
    """Rates have a floor, times a ceiling; what was not measured is neither met nor missed."""
    figures = figures_of(SAMPLES)
    rate = Goal("rate", "W1 bulk", at_least=12_000)
    share = Goal("share", "W2 aurora & co", at_least=0.7, over="W2 raw loop")
    time = Goal("time", "W3 nothing", at_most=1.0)

    assert rate.is_met(rate.reached(figures) or 0)
    assert not share.is_met(share.reached(figures) or 0)
    assert time.reached(figures) is None


def test_numbers_are_shown_with_the_digits_that_matter():
    """Thousands, tens, ones."""
    assert [shown(n) for n in (12_345.6, 99.94, 1.234, 0.0)] == ["12,346", "99.9", "1.23", "0.00"]


def test_the_table_has_every_figure():
    """Each with its median, spread and unit."""
    figures, out = figures_of(SAMPLES), io.StringIO()

    Console(file=out, width=140).print(report.table(figures.values()))

    assert all(each.what in out.getvalue() for each in figures.values())
    assert "20.0 - 50.0" in out.getvalue()


def test_the_drawing_is_well_formed():
    """A bar and its spread for each figure of a panel; names are escaped."""
    figures = figures_of(SAMPLES)
    panels = [plot.Panel("Drain <all>", ("W2 raw loop", "W2 aurora & co", "W2 missing"))]

    root = ET.fromstring(plot.draw(figures, panels))  # noqa: S314 - our own text

    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Drain <all>" in texts
    assert "aurora & co" in texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 2


def test_the_json_says_what_was_reached():
    """Goals that were not measured are left out."""
    goals = [Goal("rate", "W1 bulk", at_least=1.0), Goal("time", "W3 nothing", at_most=1.0)]

    found = report.as_json({"rounds": 2}, figures_of(SAMPLES), goals)

    assert found["goals"] == [{"goal": "rate", "reached": 12_345.6, "met": True}]
    assert found["figures"][1]["values"] == [50.0, 20.0]
