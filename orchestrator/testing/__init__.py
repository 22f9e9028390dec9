"""For users who test their agents: run one alone, and let one meet a provider that fails.

`run_agent` needs no Redis, Postgres or worker. `orchestrator.testing.provider` is a model provider
that answers, and fails, as a script says: docs/testing.md.
"""

from orchestrator.testing.running import Ran, Row, Rows, run_agent

__all__ = ["Ran", "Row", "Rows", "run_agent"]
