"""The judge of tests/faults: the end of an attempt that was fenced off."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from tests.faults.checks import Again, Evidence, Result, Run, began_again, judge
from tests.faults.ledger import Start


@pytest.mark.parametrize(
    ("forgot", "stale"),
    [
        ((), True),
        ((9.0,), True),  # before the later attempt began: Redis knew of it
        ((11.0,), False),  # who owned the task was forgotten
        ((13.0,), True),  # the end was accepted before
    ],
)
def test_an_end_of_a_fenced_off_attempt_is_wrong_unless_redis_forgot_the_fence(
    forgot: tuple[float, ...], *, stale: bool
):
    """Attempt 2 begins at 10 s, attempt 1 ends at 12 s and is the result."""
    at = datetime.fromtimestamp(12, UTC)
    run = Run(asked=(), kills=[], orders=[], deaths={}, ends={}, worker_deaths=0, forgot=forgot)
    found = judge(
        Evidence(
            asked={}, accepted={}, states={}, first_seen={}, audit={}, dead_letters=Counter(),
            starts=[Start("a", 1, 1, 5.0), Start("a", 2, 2, 10.0)], strangers=frozenset(),
            results={"a": Result("a", "succeeded", 1, None, "worker", at, at)},
        ),
        run,
    )  # fmt: skip

    assert (found.wrong["fenced off and accepted"] == ["a"]) is stale


def test_a_start_after_two_kills_is_told_apart():
    """The first kill is not what it waits for where the next one who took it was killed, too."""
    starts = [
        Start("a", 1, pid=1, at=10.0), Start("a", 2, pid=2, at=12.5),
        Start("b", 1, pid=1, at=10.0), Start("b", 3, pid=3, at=15.5),
    ]  # fmt: skip
    assert began_again(starts, [(1, 10.5)]) == [Again(2.0, 2, 0), Again(5.0, 3, 1)]
