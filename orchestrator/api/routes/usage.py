"""/api/v1/usage: what calls of models cost, by agent, model and day."""

from typing import Annotated

from fastapi import Query

from orchestrator.api.auth import needs
from orchestrator.api.paging import Moment, Text
from orchestrator.api.parts import Parts
from orchestrator.api.problems import Problem
from orchestrator.api.requests import guarded
from orchestrator.api.schemas import UsageGroup, UsageOut
from orchestrator.db.keys import Scope
from orchestrator.db.usage import MOST_GROUPS, By, Group, spending

router = guarded("/api/v1/usage", "usage")

GroupBy = Annotated[
    list[str] | None,
    Query(max_length=10, description="any of agent, model, day; without it, the total alone"),
]


@router.get("", operation_id="readUsage", dependencies=[needs(Scope.TASKS_READ)])
async def read_usage(
    parts: Parts,
    *,
    group_by: GroupBy = None,
    since: Moment | None = None,
    until: Moment | None = None,
    agent: Text | None = None,
    model: Text | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_GROUPS, description="groups at most")] = MOST_GROUPS,
) -> UsageOut:
    """Sums of all calls that were answered from `since` on and before `until`; days are UTC's."""
    if since and until and since >= until:
        raise Problem(422, "invalid_request", "`since` has to be before `until`")
    found = await spending(
        parts.database, by=_words(group_by or ()), since=since, until=until, agent=agent,
        model=model, limit=limit,
    )  # fmt: skip
    return UsageOut(
        items=[_shown(each) for each in found.groups],
        total=_shown(Group(usage=found.total)),
        left_out=found.left_out,
    )


def _words(given: list[str] | tuple[()]) -> list[By]:
    """`agent,model` and `agent&group_by=model` alike. Raises Problem."""
    said = [each.strip() for one in given for each in one.split(",") if each.strip()]
    known = [each.value for each in By]
    for word in said:
        if word not in known:
            raise Problem(
                422, "invalid_request", f"cannot group by {word[:100]!r}; there are"
                f" {', '.join(known)}",
                errors=[{"pointer": "/query/group_by", "message": f"use {', '.join(known)}"}],
            )  # fmt: skip
    return list(dict.fromkeys(map(By, said)))


def _shown(group: Group) -> UsageGroup:
    return UsageGroup(agent=group.agent, model=group.model, day=group.day, **group.usage.as_json())
