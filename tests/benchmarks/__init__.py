"""How fast it is, measured beside the raw loops and two peers: `python -m tests.benchmarks`.

Never a test's assertion: the machine decides these numbers, and a shared one changes its mind.
"""
