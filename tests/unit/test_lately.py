"""What a tail remembers: everything after a position, or that it does not reach so far back."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.streams import told
from orchestrator.streams.position import EntryId, Position
from orchestrator.streams.told import Lately, LiveMessage, Reading

SOURCES = ("network", "cps")


@given(
    heard=st.lists(st.sampled_from(SOURCES), max_size=40),
    room=st.integers(min_value=1, max_value=20),
    at=st.tuples(st.integers(0, 45), st.integers(0, 45)),
)
def test_it_gives_all_that_came_after_or_says_that_it_cannot(heard, room, at):
    """However little room there is, and wherever on each stream the client stands."""
    position = Position(dict.fromkeys(SOURCES, EntryId(5, 0)))
    lately: Lately[int] = Lately(position)
    client = Position(dict(zip(SOURCES, (EntryId(each, 0) for each in at), strict=True)))
    everything = []
    before, told.READ_BYTES = told.READ_BYTES, room
    try:
        for number, source in enumerate(heard):
            position = position.moved(source, EntryId(6 + number, 0))
            reading = Reading(str(number), number, "x")
            message = LiveMessage(source, EntryId(6 + number, 0), position, reading)
            lately.keep(message)
            everything.append(message)
    finally:
        told.READ_BYTES = before

    missed = [each for each in everything if each.entry_id > client[each.source]]
    if lately.reaches(client):
        assert lately.after(client, lambda _: True) == missed
    elif all(each >= EntryId(5, 0) for each in client.ids.values()):
        assert len(missed) > room or len(heard) > room
