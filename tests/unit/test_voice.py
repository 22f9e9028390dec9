"""What a run says on its way is news, and no more than that."""

from datetime import UTC, datetime

from orchestrator.runtime.flight import Flight
from orchestrator.runtime.voice import Voice
from orchestrator.streams.connection import Streams
from orchestrator.streams.consumer import Delivery
from orchestrator.streams.names import Keys
from orchestrator.task import Task, new_id


async def test_progress_while_redis_is_away_does_not_end_the_attempt():
    """P1: an outage costs the news, and uses up no attempt of the retry policy."""
    nobody = Streams("redis://127.0.0.1:1/0", Keys("voice"))
    task = Task(task_id=new_id(), agent="any", input={})
    flight = Flight(
        delivery=Delivery("voice:agent:tasks", "1-1", {}), task=task, digest=task.digest,
        attempt=1, crashes=0, suspect=False, started_at=datetime.now(UTC),
    )  # fmt: skip

    still_ours = await Voice(nobody, group="g", consumer="c").progress(flight, {"step": 1})

    assert still_ours
    await nobody.close()
