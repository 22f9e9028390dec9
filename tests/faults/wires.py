"""What is said on a connection to Redis or Postgres, as far as to tell which reply is which.

The proxy feeds these with what passes; they change nothing of it.
"""

import hashlib
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import hiredis

from orchestrator.streams.connection import SCRIPTS, _source

_NOT_ALL = object()  # hiredis' answer while a message is incomplete
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_STATUS_LENGTH = 5  # bytes before a Postgres message's body: its kind and its length


class Wire(Protocol):
    """Pairs answers with what was asked."""

    def asked(self, data: bytes) -> None: ...

    def answered(self, data: bytes) -> list[str]:
        """What the answers that are complete with this were answers to: a command, a script."""
        ...


class RedisWire:
    """Replies come in the order of their commands. Refusals are told as "refused"."""

    def __init__(self) -> None:
        self._asked = hiredis.Reader(notEnoughData=_NOT_ALL)
        self._answers = hiredis.Reader(notEnoughData=_NOT_ALL)
        self._open: deque[str] = deque()

    def asked(self, data: bytes) -> None:
        self._asked.feed(data)
        while (command := self._asked.gets()) is not _NOT_ALL:
            self._open.append(_named(command))

    def answered(self, data: bytes) -> list[str]:
        self._answers.feed(data)
        found = []
        while (reply := self._answers.gets()) is not _NOT_ALL:
            kind = self._open.popleft()
            if isinstance(reply, Exception):
                kind = "refused"
            elif kind == "XREADGROUP" and reply is None:
                kind = "nothing read"
            found.append(kind)
        return found


def _named(command: Any) -> str:
    name = str(command[0].decode().upper())
    if name == "EVALSHA":
        return _SCRIPTS.get(command[1].decode(), name)
    if name == "EVAL":
        digest = hashlib.sha1(command[1], usedforsecurity=False).hexdigest()
        return _SCRIPTS.get(digest, name)
    return name


_SCRIPTS: Mapping[str, str] = {
    hashlib.sha1(_source(name).encode(), usedforsecurity=False).hexdigest(): name
    for name in SCRIPTS
}


class PostgresWire:
    """Knows one reply: the one that says that something is committed.

    That is the tag COMMIT, or the end of a statement outside of any transaction (the client's
    insertions are a SELECT with a WITH).
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        self._greeted = False
        self._idle = False  # no transaction is open
        self._tag = b""

    def asked(self, data: bytes) -> None:
        if not self._greeted:
            self._greeted = True
            self._skip = int(data.startswith(_SSL_REQUEST))  # answered by one bare byte

    def answered(self, data: bytes) -> list[str]:
        self._buffer += data
        if self._skip and self._buffer:
            del self._buffer[0]
            self._skip = 0
        found = []
        while len(self._buffer) >= _STATUS_LENGTH:
            end = 1 + int.from_bytes(self._buffer[1:_STATUS_LENGTH], "big")
            if len(self._buffer) < end:
                break
            kind, body = self._buffer[:1], bytes(self._buffer[_STATUS_LENGTH:end])
            del self._buffer[:end]
            if kind == b"C":
                self._tag = body
            elif kind == b"Z":  # ready for the next, with the state of the transaction
                if body == b"I" and self._tag.startswith(
                    b"COMMIT" if not self._idle else b"SELECT"
                ):
                    found.append("COMMIT")
                self._idle, self._tag = body == b"I", b""
        return found


class DeafWire:
    """Looks at nothing."""

    def asked(self, data: bytes) -> None:
        pass

    def answered(self, data: bytes) -> list[str]:
        return []


WIRES: Mapping[str, type[Wire]] = {
    "redis": RedisWire, "postgres": PostgresWire, "replication": DeafWire,
}  # fmt: skip
