"""Single submissions that arrive while Postgres commits others share the next commit.

Self-clocked, as `completion` is: a lone caller waits for nobody, a hundred callers cost one commit
and one write to Redis. The submitter calls this.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import OrchestratorError
from orchestrator.task import Task, TaskId

logger = logging.getLogger("aurora.submitter")

GROUP = 500  # tasks in one statement: about ten milliseconds of Postgres' time

Commit = Callable[[Sequence[tuple[Task, str]]], Awaitable[Collection[TaskId]]]
Publish = Callable[[Sequence[Task]], Awaitable[Mapping[TaskId, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One caller's task, and the future that he waits for."""

    task: Task
    actor: str
    # What was published in its group, by task id; None where the group did not accept this one.
    answer: asyncio.Future[Mapping[TaskId, str] | None]


class GroupCommit:
    """Commits tasks in groups and publishes them. Refuses none: that is for who asks again alone.

    A caller who is cancelled takes back what is not on its way yet; what is stays accepted.
    """

    def __init__(self, *, commit: Commit, publish: Publish) -> None:
        """Store. `commit` gives the ids of the tasks that are new; `publish` their entries' ids."""
        self._commit = commit
        self._publish = publish
        self._waiting: deque[_Asked] = deque()
        self._committing = False
        self._groups: set[asyncio.Task[None]] = set()  # held, so that none is collected half way

    async def accept(self, task: Task, *, actor: str) -> Mapping[TaskId, str] | None:
        """The entries that were published with this task's, None where it was not accepted.

        None says nothing about the task: it may be a duplicate, or its neighbour unrecordable.
        Raises Unavailable.
        """
        asked = _Asked(task=task, actor=actor, answer=asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._next_group()
        return await asked.answer

    async def close(self) -> None:
        """Wait for what is on its way."""
        while self._groups:
            await asyncio.wait(self._groups)

    def _next_group(self) -> None:
        if self._waiting and not self._committing:
            self._committing = True
            running = asyncio.create_task(self._run())
            self._groups.add(running)
            running.add_done_callback(self._groups.discard)

    async def _run(self) -> None:
        # Taken here and not before: who asks in the same turn of the loop belongs to it.
        group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
        group = [each for each in group if not each.answer.done()]
        try:
            accepted = await self._accept(group)
            entries = await self._publish([each.task for each in accepted])
            for each in accepted:
                _answer(each, entries)
        except Exception as error:  # noqa: BLE001 - raised to each caller
            for each in group:
                if not each.answer.done():
                    each.answer.set_exception(error)
        finally:
            for each in group:
                each.answer.cancel()  # the loop ends: nobody is left waiting

    async def _accept(self, group: Sequence[_Asked]) -> list[_Asked]:
        """Commit what is new of the group and answer the others; the next group begins."""
        new: set[TaskId] = set()
        try:
            if group:
                new.update(await self._commit([(each.task, each.actor) for each in group]))
        except OrchestratorError:
            raise  # an outage, which is everybody's
        except Exception:
            # The fault of one of them. Each asks again alone, so that he alone hears of it.
            logger.warning(
                "a group of %d is accepted one by one", len(group), exc_info=True,
                extra={"event": "accept.one_by_one"},
            )  # fmt: skip
        finally:
            self._committing = False
            self._next_group()
        accepted = []
        for each in group:
            if each.task.task_id in new:
                new.remove(each.task.task_id)  # the same id again is a duplicate, or a conflict
                accepted.append(each)
            else:
                _answer(each, None)
        return accepted


def _answer(asked: _Asked, entries: Mapping[TaskId, str] | None) -> None:
    if not asked.answer.done():
        asked.answer.set_result(entries)
