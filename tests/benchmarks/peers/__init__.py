"""Two peers beside us, each in an environment of its own outside the repository.

`*_jobs.py` run in the peer's environment and import nothing of ours but the gate.
"""
