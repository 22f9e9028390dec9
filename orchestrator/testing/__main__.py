"""The scripted provider as a process of its own, for programs that measure many workers.

python -m orchestrator.testing --rate 60/60 --retry-after --answer-seconds 0.2

Its first line is {"url": ...}; at SIGINT or SIGTERM the last one is its count, which is also at
GET /count while it runs.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict

from orchestrator.testing.provider import (
    Answer,
    Outage,
    RateLimit,
    Script,
    ScriptedProvider,
    WrongKey,
    obedient,
)
from orchestrator.testing.rules import Rule


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop."""
    asyncio.run(_serve(_parser().parse_args(arguments)))


async def _serve(asked: argparse.Namespace) -> None:
    rules: list[Rule] = [*asked.outage]
    if asked.key:
        rules.append(WrongKey(asked.key))
    if asked.rate:
        requests, per = asked.rate
        rules.append(
            RateLimit(
                requests=requests,
                per=per,
                kind="bucket" if asked.bucket else "window",
                retry_after=asked.retry_after,
                headers=asked.headers,
            )
        )
    stopping = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, stopping.set)
    async with ScriptedProvider(_script(asked), rules=rules, port=asked.port, keep=0) as provider:
        _say({"url": provider.url})
        await stopping.wait()
    _say(asdict(provider.count))


def _script(asked: argparse.Namespace) -> Script:
    if asked.text is None and asked.output is None:
        return obedient
    return Answer(
        asked.text,
        output=asked.output,
        input_tokens=asked.input_tokens,
        output_tokens=asked.output_tokens,
        seconds=asked.answer_seconds,
    )


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m orchestrator.testing", description=__doc__)
    add = found.add_argument
    add("--port", type=int, default=0, help="0, the default: any free one")
    add("--text", help="answer every request with this; default: the obedient model")
    add("--output", type=json.loads, help="answer every request with this JSON as its output")
    add("--input-tokens", type=int, help="of each answer; default: counted from the request")
    add("--output-tokens", type=int, help="of each answer; default: counted from the answer")
    add("--answer-seconds", type=float, default=0.0, help="that each answer takes")
    add("--rate", type=_rate, metavar="N/SECONDS", help="429 beyond this, for each key")
    add("--bucket", action="store_true", help="--rate fills evenly instead of by windows")
    add("--retry-after", action="store_true", help="a 429 says when to come back")
    add("--headers", action="store_true", help="x-ratelimit-* on every reply")
    add("--outage", type=_outage, action="append", default=[], metavar="FROM:TO[:closed|STATUS]")
    add("--key", action="append", help="401 for every key but these")
    return found


def _rate(text: str) -> tuple[int, float]:
    try:
        requests, per = text.split("/")
        return int(requests), float(per)
    except ValueError as error:
        raise argparse.ArgumentTypeError("requests and seconds, such as 60/60") from error


def _outage(text: str) -> Outage:
    try:
        start, end, *by = text.split(":")
        if by == ["closed"]:
            return Outage(float(start), float(end), by="closed")
        return Outage(float(start), float(end), by=int(by[0]) if by else 503)
    except ValueError as error:
        told = "seconds since the start, such as 30:90, 30:90:closed or 30:90:529"
        raise argparse.ArgumentTypeError(told) from error


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
