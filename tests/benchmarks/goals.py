"""The goals of the issue "Ahead of every peer", as bounds on figures."""

from tests.benchmarks.figures import Goal

GOALS = (
    Goal("drain: 1.25 x pgqueuer", "W2 aurora, 1 worker", at_least=1.25, over="W2 pgqueuer"),
    Goal("drain: 14 k/s", "W2 aurora, 1 worker", at_least=14_000),
    Goal("drain: 60 % of the raw loop", "W2 aurora, 1 worker", at_least=0.6, over="W2 raw loop"),
    Goal(
        "drain: two workers not slower than one",
        "W2 aurora, 2 workers",
        at_least=1.0,
        over="W2 aurora, 1 worker",
    ),
    Goal("enqueue in bulk, stream: 50 k/s", "W1 bulk, stream", at_least=50_000),
    Goal("enqueue in bulk, database: 20 k/s", "W1 bulk, database", at_least=20_000),
    Goal(
        "enqueue one by one, stream: 90 % of a bare XADD",
        "W1 one by one, stream",
        at_least=0.9,
        over="W1 raw XADD one by one, redis-py",
    ),
    Goal(
        "enqueue one by one, database: 90 % of a bare commit",
        "W1 one by one, database",
        at_least=0.9,
        over="W1 raw one-row commit, asyncpg",
    ),
    Goal("100 callers, database: 5 k/s", "W1 100 callers, database", at_least=5_000),
    Goal("result in hand: p50 1.1 ms", "W3 result p50, stream", at_most=1.1),
    Goal("result in hand: p99 2.5 ms", "W3 result p99, stream", at_most=2.5),
    Goal("start: p50 0.6 ms", "W3 start p50, stream", at_most=0.6),
    Goal("2,000 x 0.5 s: 1.05 x ideal", "W4 aurora, 2,000 tasks", at_most=1.05),
    Goal("idle worker: 60 MB", "W5 idle worker, RSS", at_most=60),
    Goal("idle worker: 0.5 % CPU", "W5 idle worker, CPU", at_most=0.5),
    Goal(
        "memory flat over the drain: 1.2 x",
        "W5 worker, late RSS / early RSS over 100,000",
        at_most=1.2,
    ),
    Goal(
        "drain of 10^6 as fast as of 10^4: 0.8",
        "W6 backlog 1,000,000",
        at_least=0.8,
        over="W6 backlog 10,000",
    ),
    Goal(
        "list and detail at 10^6 rows: p95 10 ms",
        "W6 queries at 1,000,000 rows, slowest p95",
        at_most=10,
    ),
    Goal(
        "no sequential scan at 10^6 rows",
        "W6 queries at 1,000,000 rows, sequential scans",
        at_most=0,
    ),
)
