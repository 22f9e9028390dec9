"""In which order a reader takes from the lanes of its queues: a pure rule."""

from collections.abc import Mapping, Sequence

Step = tuple[str, int]  # a stream's key, and the most to read from it

SHARE = 9  # of nine, one is the next lower priority's: eight high to one normal, and so on


def steps(queues: Sequence[tuple[str, str, str]], *, free: int, turn: int) -> list[Step]:
    """What to read for `free` slots in round `turn`; each queue is (high, normal, low).

    One normal for every eight high, one low for every eight normal, when all wait; a lane that is
    empty leaves its share to the others. With one queue and 81 slots: 1 low, 8 normal, then as
    many high as there are, then normal, then low. With one slot the shares go by the turn: every
    ninth turn asks normal first, every 81st low.
    """
    found: list[Step] = []
    # Another queue comes first at each turn, so that none starves behind a full one.
    start = turn % len(queues) if queues else 0
    ordered = [*queues[start:], *queues[:start]]
    for _high, normal, low in ordered:
        for_low = _reserved(free, turn, SHARE * SHARE)
        for_normal = _reserved(free - for_low, turn, SHARE)
        found += [(low, for_low), (normal, for_normal)]
    for lane in range(3):
        found += [(queue[lane], free) for queue in ordered]
    return [step for step in found if step[1] > 0]


def _reserved(free: int, turn: int, share: int) -> int:
    whole = free // share
    return whole or (1 if free > 0 and turn % share == share - 1 else 0)


def busy(got: Mapping[str, int], asked: Mapping[str, int], free: int) -> set[str]:
    """The lanes that may have more: of `free` slots, what was `asked` of each and what it `got`.

    Nothing asked: they were taken in order, which leaves no slot free while there is more.
    """
    if asked:
        return {key for key, count in got.items() if count >= asked[key]}
    return set(got) if sum(got.values()) >= free else set()
