"""Runs one server process and ends it when the process that asked for it ends, however it ends.

A script, never imported: `python -I -S reaper.py SPEC`, started by tied.py. Standard library
only, and little of it, so that it is up in about 25 ms and works whatever the app has imported.

    app ──(write end of a pipe)──► reaper ──► server
         EOF: stop the server               PR_SET_PDEATHSIG, should the reaper itself be killed
         b"k": SIGKILL the server

The reaper never restarts anything. It inherits the lock on the state directory and passes it on
to the server, so that the lock is free exactly when no process uses the directory any more.
SPEC is JSON: `argv`, `cwd`, `input` (text for the server's stdin or null), `environment` (what it
gets besides ours), `run_as` (null or `{"uid", "gid", "namespace"}`), `stop_signal`,
`orphan_signal`, `stop_seconds`. The server's output goes to our stderr; our stdout says the
server's pid in one line, then nothing more.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWUSER = 0x10000000
# How often the parent's identity is looked at. The pipe is what tells us in practice; this is for
# an app that forked without exec and so left a second holder of the write end behind.
PARENT_CHECK_SECONDS = 1.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> int:
    """Run the server that argv[1] describes; return its exit code, 128 + n for signal n."""
    spec = json.loads(sys.argv[1])
    app = os.getppid()
    # Orphans of the server (backends, a child writing a snapshot) become our children, not
    # init's, so that none of them outlives us unnoticed.
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    signals = _signals_as_bytes()
    server = _spawn(spec)
    # The app may be dead already; the pipe from it tells us a moment later.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"%d\n" % server)
    status = _tend(server, spec, app=app, signals=signals)
    _kill_what_is_left(server)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _tend(server: int, spec: dict[str, Any], *, app: int, signals: int) -> int:
    """Wait for the server's end, bringing it about when asked; return its wait status."""
    kill_at: float | None = None  # set once the server was asked to stop
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == server:
            return status
        if ended:
            continue
        if kill_at is not None and time.monotonic() >= kill_at:
            # Seen with Valkey: a SIGTERM that is ignored for ever. Every wait is bounded.
            os.kill(server, signal.SIGKILL)
            kill_at += PARENT_CHECK_SECONDS
        watched = [signals] if kill_at is not None else [signals, 0]
        readable, _, _ = select.select(watched, [], [], _patience(kill_at))
        got = os.read(signals, 64) if signals in readable else b""
        order = os.read(0, 1) if 0 in readable else None
        if order == b"k":
            os.kill(server, signal.SIGKILL)
        elif kill_at is None and (
            order == b"" or any(wanted in got for wanted in STOP_SIGNALS) or os.getppid() != app
        ):
            os.kill(server, spec["stop_signal"])
            kill_at = time.monotonic() + spec["stop_seconds"]


def _patience(kill_at: float | None) -> float:
    if kill_at is None:
        return PARENT_CHECK_SECONDS
    return min(PARENT_CHECK_SECONDS, max(0.0, kill_at - time.monotonic()))


def _signals_as_bytes() -> int:
    """Turn signals into bytes on a pipe, so that one select() waits for everything."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return readable


def _spawn(spec: dict[str, Any]) -> int:
    """Start the server; return its pid."""
    reaper = os.getpid()
    text = spec["input"]
    source, sink = (os.open(os.devnull, os.O_RDONLY), -1) if text is None else os.pipe()
    child = os.fork()
    if child == 0:
        _become_server(spec, stdin=source, reaper=reaper)
    os.close(source)
    if text is not None:
        # A server that fails at once closes its end before it has read anything.
        with contextlib.suppress(BrokenPipeError):
            os.write(sink, text.encode())
        os.close(sink)
    return child


def _become_server(spec: dict[str, Any], *, stdin: int, reaper: int) -> NoReturn:
    """Turn the forked child into the server; never returns, whatever happens."""
    try:
        signal.set_wakeup_fd(-1)
        # Handlers end with exec, ignored signals do not: Python ignores these two.
        for number in (*STOP_SIGNALS, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        os.dup2(stdin, 0)
        os.dup2(2, 1)
        if spec["run_as"] is not None:
            _take_identity(**spec["run_as"])
        # After the change of user: only then does chdir prove that this user gets here.
        os.chdir(spec["cwd"])
        # After it too, because the kernel clears the setting when credentials change.
        _prctl(PR_SET_PDEATHSIG, spec["orphan_signal"])
        if os.getppid() != reaper:  # it died before the line above took effect
            os._exit(1)
        environment = {**os.environ, **spec["environment"]}
        os.execve(spec["argv"][0], spec["argv"], environment)  # noqa: S606  no shell is the point
    except BaseException as error:  # noqa: BLE001  a forked child must not run the parent's code
        os.write(2, f"cannot run {spec['argv'][0]}: {error}\n".encode())
    os._exit(127)


def _take_identity(*, uid: int, gid: int, namespace: bool) -> None:
    """Stop being root: become another user, or look like one in a user namespace."""
    if not namespace:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        return
    # What `unshare --user --map-user` does, without needing util-linux 2.36 or later. Files stay
    # root's; inside, root's own uid shows as `uid` and has no privileges left after exec.
    our_uid, our_gid = os.geteuid(), os.getegid()  # inside, neither has a number yet
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"user namespaces are not allowed here: {os.strerror(errno)}")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {our_uid} 1"),
        ("gid_map", f"{gid} {our_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123  no pathlib: its import costs 4 ms
            file.write(text)


def _prctl(option: int, value: int) -> None:
    # Elsewhere (macOS) the pipe alone has to do; it covers all but a SIGKILL of this process.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _kill_what_is_left(server: int) -> None:
    """End the dead server's own children: those that came to us, or elsewhere its group."""
    if sys.platform != "linux":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server, signal.SIGKILL)
        return
    children = f"/proc/self/task/{os.getpid()}/children"
    with contextlib.suppress(ChildProcessError):
        while True:
            with (
                contextlib.suppress(FileNotFoundError),
                open(children) as file,  # noqa: PTH123  no pathlib: its import costs 4 ms
            ):
                for pid in file.read().split():
                    os.kill(int(pid), signal.SIGKILL)
            os.waitpid(-1, 0)


if __name__ == "__main__":
    sys.exit(main())
