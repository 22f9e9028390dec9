"""How much the recorder writes at a time, and what it never writes at once."""

import asyncio
from collections.abc import Sequence

import pytest

from orchestrator.services.decoding import Item
from orchestrator.services.portions import AT_ONCE, PORTION_BYTES, UnderWay, fitting, portions
from orchestrator.task import new_id
from tests.unit.test_pairing import heard, seen


def test_a_batch_is_written_in_portions_and_in_order():
    third = PORTION_BYTES // 3
    batch = [seen(new_id(), n, third) for n in range(4)]
    alone = seen(new_id(), 9, 2 * PORTION_BYTES)

    assert portions([]) == []
    assert portions(batch[:3]) == [batch[:3]]
    assert portions([*batch, alone, *batch]) == [
        batch[:3],
        batch[3:],
        [alone],
        batch[:3],
        batch[3:],
    ]


def test_what_is_read_next_comes_to_about_one_portion():
    small, large = seen(new_id()), seen(new_id(), size=PORTION_BYTES // 10)

    assert fitting(100, []) == 200  # nothing speaks against it
    assert fitting(100, [small]) == 200
    assert fitting(100, [large] * 100) == 10
    assert fitting(10, [large] * 10) == 10
    assert fitting(10, [small] * 10) == 20
    assert fitting(1, [seen(new_id(), size=3 * PORTION_BYTES)]) == 1


class Desk:
    """Begins portions, and ends each when the test says so."""

    def __init__(self) -> None:
        self.under_way = UnderWay()
        self.begun: list[Sequence[Item]] = []
        self._ends: list[asyncio.Future[None]] = []
        self._adding: list[asyncio.Task[None]] = []

    async def _write(self, items: Sequence[Item]) -> None:
        self.begun.append(items)
        self._ends.append(asyncio.get_running_loop().create_future())
        await self._ends[-1]

    async def add(self, *items: Item) -> bool:
        """True where it began at once."""
        before = len(self.begun)
        self._adding.append(asyncio.create_task(self.under_way.begin(items, self._write)))
        await turns()
        return len(self.begun) > before

    async def end(self, number: int, error: Exception | None = None) -> None:
        if error is None:
            self._ends[number].set_result(None)
        else:
            self._ends[number].set_exception(error)
        await turns()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_few_portions_are_written_at_once():
    desk = Desk()
    for _ in range(AT_ONCE):
        assert await desk.add(seen(new_id()))
    assert not await desk.add(seen(new_id()))

    await desk.end(1)
    assert len(desk.begun) == AT_ONCE + 1


async def test_what_is_said_of_a_task_is_never_written_at_once():
    a, b = new_id(), new_id()
    desk = Desk()
    assert await desk.add(seen(a), heard(b))
    assert await desk.add(seen(new_id()))
    assert not await desk.add(heard(a))

    await desk.end(1)  # that of another task
    assert len(desk.begun) == 2
    await desk.end(0)
    assert desk.begun[2:] == [(heard(a),)]


async def test_together_they_are_no_larger_than_one_portion():
    half = PORTION_BYTES // 2
    desk = Desk()
    assert await desk.add(seen(new_id(), size=half))
    assert await desk.add(seen(new_id(), size=half))
    assert not await desk.add(seen(new_id()))

    await desk.end(0)
    assert len(desk.begun) == 3


async def test_what_is_larger_than_a_portion_is_written_by_itself():
    desk = Desk()
    assert await desk.add(seen(new_id(), size=2 * PORTION_BYTES))
    assert not await desk.add(seen(new_id()))


async def test_the_entries_in_hand_are_known_until_they_are_dealt_with():
    desk = Desk()
    await desk.add(seen(new_id(), 1), seen(new_id(), 2))
    await desk.add(seen(new_id(), 3))
    assert desk.under_way.entry_ids() == ["1-0", "2-0", "3-0"]

    await desk.end(0)
    assert desk.under_way.entry_ids() == ["3-0"]
    await desk.end(1)
    assert desk.under_way.entry_ids() == []


async def test_all_are_waited_for_and_an_error_is_the_callers():
    desk = Desk()
    await desk.add(seen(new_id()))
    await desk.add(seen(new_id()))
    settling = asyncio.create_task(desk.under_way.settled())
    await desk.end(1, RuntimeError("a fault of ours"))
    assert not settling.done()

    await desk.end(0)
    with pytest.raises(RuntimeError, match="of ours"):
        await settling


async def test_an_error_is_seen_before_the_next_one_begins():
    """Otherwise a recorder would go on reading what it cannot write."""
    desk = Desk()
    await desk.add(seen(new_id()))
    await desk.end(0, RuntimeError("a fault of ours"))
    with pytest.raises(RuntimeError, match="of ours"):
        await desk.under_way.begin([seen(new_id())], desk._write)
