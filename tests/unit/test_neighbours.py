"""Who has ended on this machine: only what the kernel says is gone, whatever else looks like it."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.streams import neighbours
from orchestrator.streams.neighbours import Neighbours, scope_of
from orchestrator.task import new_id
from tests.support import wait_until

LIVES = """
import os, sys, time
from pathlib import Path
from orchestrator.runtime.witness import Witness
from orchestrator.streams.neighbours import Neighbours
me = Neighbours(Path(sys.argv[1]), scope="s", name=sys.argv[2])
me.enter()
if sys.argv[3].startswith("runs "):
    Witness(me.memory).step_of(sys.argv[3][5:]).begins()
if sys.argv[3].startswith("ran "):
    step = Witness(me.memory).step_of(sys.argv[3][4:])
    step.begins()
    step.ended()
if sys.argv[3] == "forks" and os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print("in", flush=True)
time.sleep(600)
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks"


@pytest.fixture
def me(folder: Path) -> Iterator[Neighbours]:
    found = Neighbours(folder, scope="s", name="me")
    found.enter()
    yield found
    found.leave()


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts processes that are neighbours, under a name."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *, how: str = "lives") -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", LIVES, folder, name, how],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


async def test_one_that_was_killed_has_ended_and_one_that_stands_still_lives(me, start):
    """No time that has passed is a proof: only the kernel's word is."""
    killed, stopped = start("killed"), start("stopped")
    assert me.look().ended == ()

    stopped.send_signal(signal.SIGSTOP)
    killed.kill()
    killed.wait()

    assert me.look().ended == ("killed",)
    assert me.look().ended == ("killed",)  # also the next time: what it had may show up later


async def test_what_it_has_forked_still_counts_as_it(me, start):
    """A daemon that an agent made keeps the lock: then the lease decides."""
    process = start("parent", how="forks")
    process.kill()
    process.wait()
    assert me.look().ended == ()

    assert process.stdin is not None
    process.stdin.close()
    await wait_until(lambda: me.look().ended == ("parent",), what="the forked one has ended, too")


def test_a_file_is_shown_when_it_is_locked_and_not_before(me, folder):
    """Killed in between, it is nobody; and it does not stay."""
    (folder / ".s.half").touch(0o600)
    assert me.look().ended == ()


def test_those_of_another_redis_are_none_of_ours(me, folder):
    """One folder serves all, so that whoever lives tidies up."""
    (folder / "other.killed").touch(0o600)
    assert me.look().ended == ()
    assert scope_of("redis://a:1/0", "aurora") != scope_of("redis://a:1/1", "aurora")
    assert scope_of("redis://user:secret@a:1/0", "aurora") == scope_of("redis://a:1/0", "aurora")


def test_the_folder_does_not_grow(me, folder, monkeypatch):
    """What has ended goes after a minute, what leaves by itself at once."""
    for file in ("s.killed", "other.killed", ".s.half"):
        (folder / file).touch(0o600)
    me.look()
    monkeypatch.setattr(neighbours, "SHOWN", -1.0)

    me.look()

    assert [path.name for path in folder.iterdir()] == ["s.me"]
    me.leave()
    assert not list(folder.iterdir())


def test_those_who_look_only_for_a_moment_tidy_up_together(me, folder, monkeypatch):
    """Workers that crash again and again leave a file each, and live no minute: seen by one of
    them, it goes with the next. Not before it was shown, however long its process had lived."""
    (folder / "s.killed").touch(0o600)
    os.utime(folder / "s.killed", (1, 1))
    monkeypatch.setattr(neighbours, "SHOWN", 0.05)
    assert me.look().ended == ("killed",)
    me.leave()
    time.sleep(0.06)
    next_one = Neighbours(folder, scope="s", name="next")
    next_one.enter()

    next_one.look()

    assert [path.name for path in folder.iterdir()] == ["s.next"]
    next_one.leave()


def test_who_looked_before_it_was_locked_has_not_marked_it(me, folder, monkeypatch):
    """A mark of before would take away its file as soon as it ends, and nobody would see that."""
    real = fcntl.flock

    def flock(number: int, how: int) -> None:
        if how & fcntl.LOCK_EX:
            me.look()  # another process' look, in between
        real(number, how)

    monkeypatch.setattr(neighbours.fcntl, "flock", flock)
    late = Neighbours(folder, scope="s", name="late")
    late.enter()

    assert stat.S_IMODE((folder / "s.late").stat().st_mode) == neighbours.LIVES
    late.leave()


@pytest.mark.parametrize("how", ["open to others", "a link", "a file"])
def test_a_folder_in_which_others_could_lie_is_not_used(tmp_path, how):
    """Anybody may write below /dev/shm: a made-up file would be a death."""
    folder = tmp_path / "theirs"
    match how:
        case "open to others":
            folder.mkdir()
            folder.chmod(0o777)
        case "a link":
            (tmp_path / "elsewhere").mkdir(0o700)
            folder.symlink_to(tmp_path / "elsewhere")
        case "a file":
            folder.touch()
    me = Neighbours(folder, scope="s", name="me")
    me.enter()
    if folder.is_dir():
        (folder / "s.liar").touch(0o600)

    assert me.look().ended == ()


def test_where_no_folder_can_be_made_the_lease_decides():
    """A machine without memory to share, or a name that is a path, runs all the same."""
    me = Neighbours(Path("/dev/null/locks"), scope="s", name="me")

    me.enter()

    assert me.look().ended == ()
    me.leave()


async def test_one_that_was_killed_names_the_task_whose_code_it_ran(me, start):
    """P6: also one that is not seen to have ended; nothing where it was between two steps."""
    task, other, third = new_id(), new_id(), new_id()
    killed = start("killed", how=f"runs {task}")
    start("lives", how=f"runs {other}")
    between = start("between", how=f"ran {third}")
    for process in (killed, between):
        process.kill()
        process.wait()

    assert me.named() == {task, other}
