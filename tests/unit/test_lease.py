"""When a blocked loop is given up."""

from orchestrator.runtime.lease import Held, hopeless
from orchestrator.streams.pending import Entry


def test_what_holds_a_blocked_loop_is_given_up_after_its_own_timeout():
    """P5: it alone, however long the others wait; where nobody knows it, whose timeout is past."""

    def held(task_id: str, deadline: float) -> Held:
        entry = Entry("tasks", f"1-{task_id}", 1)
        return Held(entry, task_id=task_id, marker="m", begun="1::", deadline=deadline)

    short, long = held("1", 10.0), held("2", 600.0)

    def given_up(holder: str | None, now: float, answered: float = 9.0) -> list[Held]:
        return hopeless([short, long], holder=holder, answered=answered, now=now)

    assert given_up("1", 10.4) == []
    assert given_up("1", 10.6) == [short]
    assert given_up("2", 300.0) == []
    assert given_up("2", 601.0) == [long]
    assert given_up(None, 11.0) == []
    assert given_up(None, 12.1) == [short]
    assert given_up("1", 30.0, answered=11.0) == []
