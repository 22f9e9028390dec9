"""A few figures about many seconds, for the verdict."""

from collections.abc import Iterable


def spread(seconds: Iterable[float]) -> dict[str, float]:
    """How many there are, and p50, p99 and max of them."""
    found = sorted(seconds)
    if not found:
        return {"n": 0}
    return {
        "n": len(found),
        "p50": round(found[len(found) // 2], 3),
        "p99": round(found[int(len(found) * 0.99)], 3),
        "max": round(found[-1], 3),
    }
