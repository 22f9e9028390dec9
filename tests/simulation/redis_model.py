"""Redis' streams as far as Aurora uses them, on top of the other keys.

`tests/simulation/test_models.py` holds all of it against a real server, command by command.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulation.redis_keys import Keyspace, RedisError, Simple

EntryId = tuple[int, int]
Fields = tuple[bytes, ...]


@dataclass(slots=True)
class Pending:
    """An entry that was delivered and not acknowledged."""

    consumer: bytes
    at: int  # ms
    times: int


@dataclass(slots=True)
class Group:
    last: EntryId
    pending: dict[EntryId, Pending] = field(default_factory=dict)
    consumers: dict[bytes, int] = field(default_factory=dict)  # name -> seen at, ms

    def copy(self) -> "Group":
        """With nothing shared."""
        pending = {each: replace(p) for each, p in self.pending.items()}
        return Group(self.last, pending, dict(self.consumers))


@dataclass(slots=True)
class StreamKey:
    entries: dict[EntryId, Fields] = field(default_factory=dict)
    last: EntryId = (0, 0)
    groups: dict[bytes, Group] = field(default_factory=dict)

    def copy(self) -> "StreamKey":
        """With nothing shared."""
        groups = {name: group.copy() for name, group in self.groups.items()}
        return StreamKey(dict(self.entries), self.last, groups)

    @property
    def last_kept(self) -> EntryId:
        return max(self.entries, default=(0, 0))


class Redis(Keyspace):
    """One server's data."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__(clock)
        self._methods: dict[bytes, Callable[..., Any]] = {}  # those that were called
        self.changed: set[bytes] = set()  # streams with something new to read
        # Who watches: what was added, what is about to go, what a group acknowledges.
        self.on_add: Callable[[bytes, Fields], None] = lambda *_: None
        self.on_delete: Callable[[bytes, EntryId], None] = lambda *_: None
        self.on_acknowledge: Callable[[bytes, bytes, EntryId, Fields | None], None] = lambda *_: (
            None
        )

    def execute(self, args: Sequence[bytes]) -> Any:
        """One command. Raises RedisError."""
        method = self._methods.get(args[0]) or self._method(args[0])
        return method(*args[1:])

    def _method(self, name: bytes) -> Callable[..., Any]:
        found: Callable[..., Any] | None = getattr(self, f"x_{name.decode().lower()}", None)
        if found is None:
            raise RedisError(f"ERR unknown command '{name.decode()}'")
        self._methods[name] = found
        return found

    def _stream(self, key: bytes) -> StreamKey | None:
        found: StreamKey | None = self._get(key, StreamKey)
        return found

    def _group(self, key: bytes, name: bytes, *, said: str = "") -> tuple[StreamKey, Group]:
        stream = self._stream(key)
        group = stream.groups.get(name) if stream else None
        if stream is None or group is None:
            raise RedisError(
                f"NOGROUP No such key '{key.decode()}' or consumer group '{name.decode()}'{said}"
            )
        return stream, group

    def _consumer(self, group: Group, name: bytes) -> None:
        group.consumers[name] = self.clock()

    def x_xadd(self, key: bytes, entry_id: bytes, *fields: bytes) -> bytes:
        assert entry_id == b"*"
        stream = self._stream(key)
        if stream is None:
            stream = self.keys[key] = StreamKey()
        new = (self.clock(), 0)
        if new <= stream.last:
            new = (stream.last[0], stream.last[1] + 1)
        stream.entries[new] = fields
        stream.last = new
        self.changed.add(key)
        self.on_add(key, fields)
        return text(new)

    def x_xlen(self, key: bytes) -> int:
        stream = self._stream(key)
        return len(stream.entries) if stream else 0

    def x_xdel(self, key: bytes, *ids: bytes) -> int:
        stream = self._stream(key)
        gone = 0
        for each in map(parse, ids):
            if stream and each in stream.entries:
                self.on_delete(key, each)
                del stream.entries[each]
                gone += 1
        return gone

    def x_xtrim(self, key: bytes, how: bytes, threshold: bytes) -> int:
        stream = self._stream(key)
        if stream is None:
            return 0
        if how.upper() == b"MINID":
            least = parse(threshold)
            gone = [each for each in stream.entries if each < least]
        else:
            gone = list(stream.entries)[: max(0, len(stream.entries) - int(threshold))]
        for each in gone:
            self.on_delete(key, each)
            del stream.entries[each]
        return len(gone)

    def x_xrange(self, key: bytes, first: bytes, last: bytes, *options: bytes) -> list[Any]:
        stream = self._stream(key)
        most = int(options[1]) if options else len(stream.entries) if stream else 0
        inside = _between(first, last)
        found = [
            [text(each), list(fields)]
            for each, fields in (stream.entries.items() if stream else ())
            if inside(each)
        ]
        return found[:most]

    def x_xgroup(self, command: bytes, key: bytes, *args: bytes) -> Any:
        match command.upper():
            case b"CREATE":
                return self._create_group(key, *args)
            case b"DESTROY":
                stream = self._stream(key)
                if stream is None:
                    raise RedisError("ERR The XGROUP subcommand requires the key to exist.")
                return int(bool(stream.groups.pop(args[0], None)))
            case b"DELCONSUMER":
                _, group = self._group(key, args[0])
                owned = [each for each, p in group.pending.items() if p.consumer == args[1]]
                for each in owned:
                    del group.pending[each]
                group.consumers.pop(args[1], None)
                return len(owned)
        raise RedisError("ERR unknown subcommand")

    def _create_group(self, key: bytes, name: bytes, at: bytes, *_: bytes) -> Any:
        stream = self._stream(key)
        if stream is None:
            stream = self.keys[key] = StreamKey()
        if name in stream.groups:
            raise RedisError("BUSYGROUP Consumer Group name already exists")
        stream.groups[name] = Group(last=stream.last if at == b"$" else parse(at))
        return Simple(b"OK")

    def x_xreadgroup(self, *args: bytes) -> Any:
        """New entries ('>' only); None when there are none (blocking is the connection's)."""
        name, consumer, count = args[1], args[2], math.inf
        at = 3
        while args[at].upper() != b"STREAMS":
            if args[at].upper() == b"COUNT":
                count = int(args[at + 1])
            at += 2
        keys = args[at + 1 :][: (len(args) - at - 1) // 2]
        groups = [self._group(key, name, said=" in XREADGROUP with GROUP option") for key in keys]
        reply = []
        for key, (stream, group) in zip(keys, groups, strict=True):
            self._consumer(group, consumer)
            if stream.last <= group.last:
                continue
            fresh = [each for each in stream.entries if each > group.last]
            taken = fresh if count == math.inf else fresh[: int(count)]
            for each in taken:
                group.last = each
                group.pending[each] = Pending(consumer, self.clock(), 1)
            if taken:
                reply.append([key, [[text(e), list(stream.entries[e])] for e in taken]])
        return reply or None

    def x_xack(self, key: bytes, name: bytes, *ids: bytes) -> int:
        stream = self._stream(key)
        group = stream.groups.get(name) if stream else None
        if stream is None or group is None:
            return 0
        done = 0
        for each in map(parse, ids):
            if each in group.pending:
                self.on_acknowledge(key, name, each, stream.entries.get(each))
                del group.pending[each]
                done += 1
        return done

    def x_xpending(self, key: bytes, name: bytes, *args: bytes) -> Any:
        _, group = self._group(key, name)
        ordered = sorted(group.pending)
        if not args:
            return self._summary(group, ordered)
        inside = _between(args[0], args[1])
        now, most = self.clock(), int(args[2])
        found = [
            [text(each), p.consumer, max(0, now - p.at), p.times]
            for each in ordered
            if inside(each) and (p := group.pending[each]) and args[3:] in ((), (p.consumer,))
        ]
        return found[:most]

    def _summary(self, group: Group, ordered: list[EntryId]) -> list[Any]:
        if not ordered:
            return [0, None, None, None]
        owners: dict[bytes, int] = {}
        for p in group.pending.values():
            owners[p.consumer] = owners.get(p.consumer, 0) + 1
        counts = [[name, str(count).encode()] for name, count in sorted(owners.items())]
        return [len(ordered), text(ordered[0]), text(ordered[-1]), counts]

    def x_xclaim(self, key: bytes, name: bytes, consumer: bytes, idle: bytes, *args: bytes) -> Any:
        stream, group = self._group(key, name)
        now = self.clock()
        self._consumer(group, consumer)
        ids = [each for each in args if each[:1].isdigit() and b"-" in each]
        options = list(args[len(ids) :])
        set_idle = _option(options, b"IDLE")
        retries = _option(options, b"RETRYCOUNT")
        just_id = b"JUSTID" in options
        claimed: list[Any] = []
        for each in map(parse, ids):
            p = group.pending.get(each)
            if p is None:
                continue
            if each not in stream.entries:
                del group.pending[each]
                continue
            if int(idle) and now - p.at < int(idle):
                continue
            p.consumer, p.at = consumer, now - (set_idle or 0)
            if retries is not None:
                p.times = retries
            elif not just_id:
                p.times += 1
            claimed.append(text(each) if just_id else [text(each), list(stream.entries[each])])
        return claimed

    def x_xautoclaim(
        self, key: bytes, name: bytes, consumer: bytes, idle: bytes, start: bytes, *args: bytes
    ) -> list[Any]:
        stream, group = self._group(key, name)
        now, count = self.clock(), int(args[1]) if args else 100
        self._consumer(group, consumer)
        ordered = [each for each in sorted(group.pending) if each >= parse(start)]
        attempts, claimed, gone = count * 10, [], []
        cursor: EntryId = (0, 0)
        for each in ordered:
            if not attempts or not count:
                cursor = each
                break
            attempts -= 1
            p = group.pending[each]
            if each not in stream.entries:
                del group.pending[each]
                gone.append(text(each))
                count -= 1
            elif now - p.at >= int(idle):
                p.consumer, p.at, p.times = consumer, now, p.times + 1
                claimed.append([text(each), list(stream.entries[each])])
                count -= 1
        return [text(cursor), claimed, gone]

    def x_xinfo(self, what: bytes, key: bytes, *args: bytes) -> Any:
        stream = self._stream(key)
        if stream is None:
            raise RedisError("ERR no such key")
        match what.upper():
            case b"STREAM":
                ends = [
                    [text(each), list(stream.entries[each])] if stream.entries else None
                    for each in (min(stream.entries, default=(0, 0)), stream.last_kept)
                ]
                return [
                    b"length", len(stream.entries), b"last-generated-id", text(stream.last),
                    b"groups", len(stream.groups), b"first-entry", ends[0], b"last-entry", ends[1],
                ]  # fmt: skip
            case b"GROUPS":
                return [self._about(stream, n, stream.groups[n]) for n in sorted(stream.groups)]
        _, group = self._group(key, args[0])
        now = self.clock()
        return [
            [
                b"name", name,
                b"pending", sum(p.consumer == name for p in group.pending.values()),
                b"idle", now - seen,
            ]
            for name, seen in sorted(group.consumers.items())
        ]  # fmt: skip

    def _about(self, stream: StreamKey, name: bytes, group: Group) -> list[Any]:
        return [
            b"name", name, b"consumers", len(group.consumers), b"pending", len(group.pending),
            b"last-delivered-id", text(group.last),
            b"lag", sum(each > group.last for each in stream.entries),
        ]  # fmt: skip


def parse(entry_id: bytes) -> EntryId:
    """`ms-sequence`, or `ms` alone."""
    ms, _, sequence = entry_id.partition(b"-")
    return int(ms), int(sequence or 0)


def text(entry_id: EntryId) -> bytes:
    """As it stands in replies."""
    return b"%d-%d" % entry_id


def _between(first: bytes, last: bytes) -> Callable[[EntryId], bool]:
    after = first.startswith(b"(")
    low = (0, 0) if first == b"-" else parse(first.lstrip(b"("))
    high = (2**64, 2**64) if last == b"+" else parse(last)
    return lambda each: (low < each if after else low <= each) and each <= high


def _option(options: Sequence[bytes], name: bytes) -> int | None:
    return int(options[options.index(name) + 1]) if name in options else None
