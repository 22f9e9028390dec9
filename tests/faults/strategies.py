"""Any JSON beneath the names of the wire, by Hypothesis: what no mutation comes up with."""

import json
from collections.abc import Sequence

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.datetimes().map(str)
)  # fmt: skip
anything = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=9), scalars)
NAMES = (
    "agent", "input", "task_id", "queue", "priority", "attempt", "crashes", "expires_at", "run_at",
    "tenant", "metadata", "event", "at", "output", "error", "dead_letter", "worker", "action",
    "actor", "object_type", "object_id", "detail", "signature", "severity", "device", "metric",
    "details", "event_type", "alert", "timestamp",
)  # fmt: skip
changes = st.dictionaries(st.sampled_from(NAMES), anything, min_size=1, max_size=4)


def some_changes(seed: int, count: int) -> Sequence[str]:
    """JSON objects to lay over valid ones."""
    found: list[str] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(changes)
    def collect(change: dict[str, object]) -> None:
        found.append(json.dumps(change))

    collect()
    return found
