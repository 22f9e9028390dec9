"""Agents that call language models, through pydantic-ai (extra `models`).

`ModelAgent` makes an agent of pydantic-ai one of ours; `ctx.ask` runs one inside any agent's `run`.
"""

from orchestrator.models.agent import ModelAgent

__all__ = ["ModelAgent"]
