"""Cursors: what goes in comes out, and only with the filters it was made for."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api import paging
from orchestrator.api.problems import Problem

moments = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2199, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
filters = st.dictionaries(st.sampled_from(["agent", "state", "since"]), st.text() | st.none())


@given(at=moments, row_id=st.uuids(), wanted=filters)
def test_a_cursor_names_its_row(at: datetime, row_id: UUID, wanted: dict[str, str | None]):
    """To the microsecond: or a page would begin a row too late or too early."""
    cursor = paging.cursor_of((at, str(row_id)), wanted)

    assert paging.after(cursor, wanted) == (at, str(row_id))
    with pytest.raises(Problem, match="other filters"):
        paging.after(cursor, {**wanted, "queue": "side"})


@given(name=st.text(max_size=200))
def test_a_cursor_by_name_names_its_row(name: str):
    """Names hold anything."""
    assert paging.after_name(paging.cursor_of((name,), {}), {}) == name


@given(forged=st.text(max_size=100) | st.binary(max_size=60).map(lambda raw: raw.hex()))
def test_what_is_no_cursor_is_refused(forged: str):
    """Never with anything but a problem."""
    for read in (paging.after, paging.after_name):
        with pytest.raises(Problem):
            read(forged, {})
