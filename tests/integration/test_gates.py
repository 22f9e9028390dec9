"""The gate of a provider key: nobody stampedes, a pace is learned, and nobody is forgotten."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from random import Random

import pytest

from orchestrator.errors import Unavailable as ServerUnavailable
from orchestrator.provider import Allowance, Answered, Limited, Place, Unavailable
from orchestrator.streams.connection import Streams
from orchestrator.streams.gates import Gates, again_after
from orchestrator.streams.names import Keys
from tests.limiters import (
    BEGAN,
    FixedWindow,
    Outage,
    SlidingWindow,
    Timed,
    TokenBucket,
    busy,
    simulate,
)

AT_ONCE = [n / 1000 for n in range(300)]  # seconds: three hundred callers in a third of a second
LIMITERS = {
    "fixed": lambda told: FixedWindow(60, 60, retry_after=told),
    "fixed, a third gone": lambda told: FixedWindow(60, 60, 20, retry_after=told),
    "fixed, nearly over": lambda told: FixedWindow(60, 60, 59, retry_after=told),
    "sliding": lambda told: SlidingWindow(60, 60, retry_after=told),
    "token bucket": lambda told: TokenBucket(60, 60, retry_after=told),
}


@pytest.fixture
async def timed(servers, keys: Keys, streams) -> AsyncIterator[Timed]:
    """A door to Redis in virtual time; `streams` clears up."""
    found = Timed(servers.redis_url, keys)
    yield found
    await found.close()


@pytest.fixture
def gates(timed) -> Gates:
    return Gates(timed, jitter=Random(1).random)


async def _state(timed: Timed, provider: str = "p") -> dict[str, str]:
    found = await timed.commands.hgetall(timed.keys.gate(provider))
    return {name.decode(): value.decode() for name, value in found.items()}


async def _admitted(gates: Gates, timed: Timed, place: Place | None = None) -> float:
    """When a caller that waits and asks as told is let in."""
    place = place or Place()
    while wait := await gates.admit("p", place):
        timed.now += wait
    return timed.now - BEGAN


@pytest.mark.parametrize("told", [True, False], ids=["retry-after", "silent"])
@pytest.mark.parametrize("limiter", LIMITERS)
async def test_what_a_provider_lets_in_is_learned(gates, limiter, told):
    """P8: 60 requests a minute, 300 callers: all done, at most 1 % refused after a minute."""
    found = await simulate(gates, LIMITERS[limiter](told), AT_ONCE, seconds=busy(Random(2), mean=2))

    refused = [at for call in found for at in call.refused]
    assert len(found) == 300
    assert sum(at > 60 for at in refused) <= 3
    # Four minutes are what the provider allows (the first sixty came at once).
    assert max(call.begun for call in found) < 330


@pytest.mark.parametrize("callers", [1, 4, 400])
async def test_what_it_says_is_left_is_shared_out(gates, callers):
    """P8: with headers nobody is refused once one answer has come."""
    window = FixedWindow(60, 60, 20, headers=True)
    comes = [0.0] + [0.5 + n / 1000 for n in range(callers)]

    found = await simulate(gates, window, comes, seconds=lambda: 0.3)

    assert len(found) == callers + 1
    assert not [at for call in found for at in call.refused]
    assert max(call.begun for call in found) < 1.15 * callers + 60


async def test_nothing_known_slows_nobody_down(gates):
    """A provider that never refuses is asked at once, however many come."""
    found = await simulate(gates, Outage(0, 0), AT_ONCE, seconds=lambda: 2.0)
    assert all(
        call.begun == pytest.approx(call.came, abs=1e-5) and call.asked == 1 for call in found
    )


async def test_who_came_first_goes_first(gates):
    """P8: while more come than may, nobody is overtaken by more than a few."""
    comes = [n / 1.5 for n in range(600)]

    found = await simulate(gates, TokenBucket(30, 30), comes, seconds=busy(Random(3), mean=2))

    begun = [call.came for call in sorted(found, key=lambda call: call.begun) if not call.refused]
    order = sorted(begun)
    assert max(abs(order.index(came) - at) for at, came in enumerate(begun)) <= 25
    # The queue is ten minutes long at its end, and who waits in it asks now and then.
    assert statistics.mean(call.asked for call in found) < 25


async def test_a_refusal_closes_it_for_all_once(gates, timed):
    """P8: four hundred in flight that are all refused are one closing."""
    places = [Place() for _ in range(400)]
    assert [await gates.admit("p", place) for place in places] == [0.0] * 400
    for place in places:
        await gates.tell("p", Limited(retry_after=40), place)
        timed.now += 0.001

    later = [Place() for _ in range(400)]
    waits = [await gates.admit("p", place) for place in later]
    assert (await _state(timed))["closings"] == "1"
    assert min(waits) > 15
    # What they waited for comes again and again, at different times.
    assert len({round(wait, 3) for wait in waits}) > 350


async def test_late_news_of_those_before_it_is_no_second_closing(gates, timed):
    slow, quick = Place(), Place()
    for place in (slow, quick):
        await gates.admit("p", place)
    await gates.tell("p", Limited(retry_after=1), quick)
    timed.now += 2
    await _admitted(gates, timed)
    pace = (await _state(timed))["pace"]

    await gates.tell("p", Limited(), slow)

    state = await _state(timed)
    assert (state["closings"], state["pace"]) == ("1", pace)
    assert "closed_by" not in state


async def test_the_dead_cost_their_slot_and_no_more(gates):
    """P8: half of those who wait are killed; the others wait as if they lived, at most."""
    comes = [n / 1000 for n in range(400)]

    found = await simulate(
        gates,
        FixedWindow(60, 60),
        comes,
        seconds=lambda: 1.0,
        dies=lambda who: who >= 60 and who % 2,
    )

    assert len(found) == 230
    assert max(call.begun for call in found) < 400


async def test_an_absent_queue_is_forgotten(gates, timed):
    """P8: who comes long after all that waited are dead waits for none of them."""
    await gates.admit("p", first := Place())
    await gates.tell("p", Limited(retry_after=10), first)
    for _ in range(200):
        await gates.admit("p", Place())
    timed.now += 120

    assert await gates.admit("p", Place()) == 0.0


async def test_an_outage_is_looked_into_by_one_at_a_time(gates):
    """P8: 400 callers, for a minute each call fails after a second: a few do, and all are done."""
    found = await simulate(
        gates,
        Outage(1, 61),
        [n / 20 for n in range(400)],
        seconds=lambda: 1.0,
        refusing=1.0,
    )

    assert len(found) == 400
    # Twenty were under way when the first of them failed; then one at each look.
    assert sum(len(call.refused) for call in found) <= 30
    assert max(call.begun for call in found) < 61 + 31 + 15  # seconds: the last back-off, the queue


async def test_a_probe_that_never_reports_is_forgotten(gates, timed):
    await gates.tell("p", Unavailable())
    timed.now += 1.1
    assert await gates.admit("p", Place()) == 0.0
    assert await gates.admit("p", other := Place()) > 0

    timed.now += 30

    assert await gates.admit("p", other) == 0.0


async def test_an_answer_ends_an_outage_for_all(gates, timed):
    await gates.tell("p", Unavailable(retry_after=3))
    at = await _admitted(gates, timed, probe := Place())
    assert at == pytest.approx(3, abs=0.1)
    await gates.tell("p", Answered(), probe)
    assert [await gates.admit("p", Place()) for _ in range(100)] == [0.0] * 100


async def test_without_a_word_it_stays_away_twice_as_long_each_time(gates, timed):
    closed = []
    for _ in range(8):
        await _admitted(gates, timed, place := Place())
        began = timed.now
        await gates.tell("p", Limited(), place)
        closed.append(float((await _state(timed))["closed_until"]) - began)
    assert closed == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60], abs=0.001)


@pytest.mark.parametrize("said", [float("nan"), float("inf"), -1.0, 1e308])
async def test_absurd_seconds_count_as_none(gates, timed, said):
    """P10: what a provider says is a stranger's text."""
    await gates.tell("p", Limited(retry_after=said))
    await gates.tell("p", Answered(allowance=Allowance(remaining=-5, resets_after=said)))
    assert float((await _state(timed))["closed_until"]) == BEGAN + 1


async def test_an_hour_is_the_longest(gates, timed):
    """P10: a limit of a day is asked about once an hour; a slip of the pen, too."""
    await gates.tell("p", Limited(retry_after=1e8))
    assert float((await _state(timed))["closed_until"]) == BEGAN + 3600
    assert await gates.admit("p", Place()) <= 30


async def test_a_pace_that_is_too_low_rises_while_somebody_waits(gates, timed):
    """P8: others had used the key, so a hundredth of what is allowed seemed to be the limit."""
    await gates.tell("p", Limited(retry_after=60), await _three(gates))
    await _admitted(gates, timed)
    before = float((await _state(timed))["pace"])

    while timed.now < BEGAN + 20 * 60:
        await _admitted(gates, timed, place := Place())
        await gates.tell("p", Answered(), place)

    assert float((await _state(timed))["pace"]) > 7 * before


async def _three(gates: Gates) -> Place:
    for _ in range(4):
        await gates.admit("p", place := Place())
    return place


async def test_a_key_that_others_have_used_up_teaches_nothing(gates, timed):
    """P8: refused at the first call, one call looks whether it is better, and then all go on."""
    await gates.admit("p", first := Place())
    await gates.tell("p", Limited(retry_after=20), first)

    await _admitted(gates, timed, probe := Place())
    assert await gates.admit("p", Place()) > 0
    await gates.tell("p", Answered(), probe)

    assert [await gates.admit("p", Place()) for _ in range(100)] == [0.0] * 100


async def test_what_redis_lost_is_learned_again(gates, timed):
    """P1: FLUSHALL in the middle of a queue."""
    await gates.tell("p", Limited(retry_after=40))
    places = [Place() for _ in range(50)]
    for place in places:
        await gates.admit("p", place)
    await timed.commands.delete(timed.keys.gate("p"))

    assert [await gates.admit("p", place) for place in places] == [0.0] * 50
    await gates.tell("p", Limited(retry_after=10), places[0])
    assert await gates.admit("p", places[1]) > 4


async def test_a_clock_that_went_back_closes_nothing_for_an_hour(gates, timed):
    await gates.tell("p", Limited(retry_after=30))
    timed.now -= 3600
    assert await gates.admit("p", Place()) == 0.0


async def test_it_is_forgotten_after_a_quiet_hour(gates, timed):
    await gates.tell("p", Limited(retry_after=30))
    assert 3590 < await timed.commands.ttl(timed.keys.gate("p")) <= 3600


async def test_providers_do_not_wait_for_each_other(gates):
    await gates.tell("one", Limited(retry_after=30))
    assert await gates.admit("one") > 0
    assert await gates.admit("other") == 0.0


async def test_without_redis_everybody_waits_and_nothing_fails(caplog):
    """P8: neither does a call fail because Redis is away for a moment, nor do all begin."""
    away = Streams("redis://127.0.0.1:1/0", Keys("t"))
    gates = Gates(away)
    with pytest.raises(ServerUnavailable):
        await away.run("hold", ["t"], ["me", 1])

    waits = await asyncio.gather(*(gates.admit("p", Place()) for _ in range(20)))
    await gates.tell("p", Limited(retry_after=3))
    await away.close()

    assert all(1 <= wait <= 2 for wait in waits)
    said = [r for r in caplog.records if getattr(r, "event", "") == "provider.gate_unavailable"]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("turn", "jitter", "wait"),
    [(0.0, 0.5, 0.0), (3.0, 0.5, 3.0), (5.0, 1.0, 5.0), (10.0, 0.0, 5.0), (40.0, 1.0, 16.0),
     (3600.0, 0.0, 30.0)],
)  # fmt: skip
def test_who_waits_long_looks_again_in_between(turn, jitter, wait):
    assert again_after(turn, jitter) == pytest.approx(wait)


async def test_what_was_let_in_before_an_outage_says_nothing_of_the_limit_after_it(gates, timed):
    """P8: the window in which requests are counted ends with an outage."""
    places = [Place() for _ in range(200)]
    for place in places:
        await gates.admit("p", place)
    await gates.tell("p", Unavailable(), places[0])
    timed.now += 2
    await gates.tell("p", Answered(), places[1])  # under way when it closed

    await gates.tell("p", Limited(retry_after=1))
    assert "pace" not in await _state(timed)
    await _admitted(gates, timed, late := Place())
    await gates.tell("p", Limited(retry_after=1), late)
    await _admitted(gates, timed)

    assert "pace" not in await _state(timed)
