"""Redis as far as Aurora uses it, without the streams: keys that expire, sets, hashes, a clock."""

from collections.abc import Callable
from typing import Any

WRONG = "WRONGTYPE Operation against a key holding the wrong kind of value"


class RedisError(Exception):
    """An error reply; its text begins with the code."""


class Simple(bytes):
    """A status reply."""


class Keyspace:
    """The state, and one method for each command (`x_<name>`). `clock` is in ms."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.keys: dict[bytes, Any] = {}
        self.expires: dict[bytes, int] = {}
        self.maxmemory = 0
        self.used = 0

    def state(self) -> tuple[dict[bytes, Any], dict[bytes, int]]:
        """A copy of everything that is kept."""
        copied = {
            key: value if isinstance(value, bytes) else value.copy()
            for key, value in self.keys.items()
        }
        return copied, dict(self.expires)

    def _get(self, key: bytes, kind: type) -> Any:
        due = self.expires.get(key)
        if due is not None and due <= self.clock():
            self._drop(key)
        found = self.keys.get(key)
        if found is not None and not isinstance(found, kind):
            raise RedisError(WRONG)
        return found

    def _drop(self, key: bytes) -> bool:
        self.expires.pop(key, None)
        return self.keys.pop(key, None) is not None

    def x_get(self, key: bytes) -> Any:
        return self._get(key, bytes)

    def x_mget(self, *keys: bytes) -> Any:
        # None of another type, too: it is the one that does not refuse it.
        found = [self._get(key, object) for key in keys]
        return [each if isinstance(each, bytes) else None for each in found]

    def x_set(self, key: bytes, value: bytes, *options: bytes) -> Any:
        said = [option.upper() for option in options]
        before = self._get(key, bytes if b"GET" in said else object)
        if b"NX" not in said or before is None:
            self.keys[key] = value
            self.expires.pop(key, None)
            if b"PX" in said:
                self.expires[key] = self.clock() + int(options[said.index(b"PX") + 1])
        elif b"GET" not in said:
            return None
        return before if b"GET" in said else Simple(b"OK")

    def x_exists(self, key: bytes) -> int:
        return int(self._get(key, object) is not None)

    def x_del(self, *keys: bytes) -> int:
        return sum(self._drop(key) for key in keys)

    def x_pttl(self, key: bytes) -> int:
        if self._get(key, object) is None:
            return -2
        due = self.expires.get(key)
        return -1 if due is None else due - self.clock()

    def x_flushall(self) -> Any:
        self.keys.clear()
        self.expires.clear()
        return Simple(b"OK")

    def x_time(self) -> list[bytes]:
        now = self.clock()
        return [str(now // 1000).encode(), str(now % 1000 * 1000).encode()]

    def x_info(self, *_: bytes) -> bytes:
        return (
            f"redis_version:7.0.15\r\nused_memory:{self.used}\r\nmaxmemory:{self.maxmemory}\r\n"
            "maxmemory_policy:noeviction\r\n"
        ).encode()

    def x_memory(self, *_: bytes) -> int:
        return 1000

    def x_client(self, *_: bytes) -> Any:
        return Simple(b"OK")

    def x_sadd(self, key: bytes, *members: bytes) -> int:
        found = self.keys.setdefault(key, {})
        before = len(found)
        found.update(dict.fromkeys(members))
        return len(found) - before

    def x_smembers(self, key: bytes) -> list[bytes]:
        return list(self._get(key, dict) or ())

    def x_hset(self, key: bytes, name: bytes, value: bytes) -> int:
        found = self.keys.setdefault(key, {})
        fresh = name not in found
        found[name] = value
        return int(fresh)

    def x_hget(self, key: bytes, name: bytes) -> Any:
        return (self._get(key, dict) or {}).get(name)

    def x_hdel(self, key: bytes, *names: bytes) -> int:
        found = self._get(key, dict) or {}
        gone = sum(found.pop(name, None) is not None for name in names)
        if key in self.keys and not found:
            self._drop(key)
        return gone

    def x_zadd(self, key: bytes, score: bytes, member: bytes) -> int:
        found = self.keys.setdefault(key, {})
        fresh = member not in found
        found[member] = float(score)
        return int(fresh)

    def x_zcard(self, key: bytes) -> int:
        return len(self._get(key, dict) or ())

    def x_zrem(self, key: bytes, *members: bytes) -> int:
        return self.x_hdel(key, *members)

    def x_zscore(self, key: bytes, member: bytes) -> Any:
        score = (self._get(key, dict) or {}).get(member)
        return None if score is None else _number(score)

    def x_zrangebyscore(
        self, key: bytes, low: bytes, high: bytes, _: bytes, offset: bytes, count: bytes
    ) -> list[bytes]:
        least, most = float(low), float(high)
        found = [m for score, m in self._ranked(key) if least <= score <= most]
        return found[int(offset) :][: int(count)]

    def x_zrange(self, key: bytes, first: bytes, last: bytes, *_: bytes) -> list[bytes]:
        found = self._ranked(key)[int(first) : int(last) + 1]
        return [part for score, member in found for part in (member, _number(score))]

    def _ranked(self, key: bytes) -> list[tuple[float, bytes]]:
        return sorted((score, member) for member, score in (self._get(key, dict) or {}).items())


def _number(score: float) -> bytes:
    return str(int(score)).encode() if score == int(score) else repr(score).encode()
