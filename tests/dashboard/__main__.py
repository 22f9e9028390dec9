"""`python -m tests.dashboard`: serve a seeded dashboard, photograph it for the docs, or time it."""

import argparse
import asyncio
from pathlib import Path

from tests.dashboard import latency, photographs, speed, standing

HOW = {
    "serve": standing.serve,
    "photograph": photographs.photograph,
    "speed": speed.measure,
    "latency": latency.measure,
}


def main() -> None:
    """One of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.dashboard", description=__doc__)
    parser.add_argument("what", choices=HOW)
    parser.add_argument("--into", type=Path, default=Path("docs/dashboard"))
    parser.add_argument("--only", default="", help="pages whose name contains this")
    parser.add_argument("--narrow", action="store_true", help="as on a telephone, too")
    parser.add_argument("--rows", type=int, default=1_000_000, help="tasks to be fast with")
    parser.add_argument("--messages", type=int, default=300, help="of devices, for latency")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    asyncio.run(HOW[asked.what](asked))


if __name__ == "__main__":
    main()
