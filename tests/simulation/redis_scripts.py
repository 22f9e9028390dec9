"""Aurora's own Lua scripts, run by Lua 5.1 as the server would, against the model."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from lupa.lua51 import LuaError, LuaRuntime, lua_type

from tests.simulation.redis_keys import RedisError, Simple
from tests.simulation.redis_model import Redis

# The outer function is the script's; what it is given are its own KEYS and ARGV.
WRAP = b"return function(KEYS, ARGV, redis, cjson)\n%s\nend"


class Scripts:
    """What was loaded into one server."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._loaded: dict[bytes, Any] = {}
        self._api = self._lua.table_from({b"call": self._call, b"pcall": self._protected})
        self._cjson = self._lua.table_from({b"decode": self._decode})
        self._raised: RedisError | None = None
        # A Lua error tells nothing of its cause, so it is kept beside it.
        wrap = self._lua.execute(
            b"return function(f) return function(...)"
            b" local r = f(...); if type(r) == 'table' and r.raised then error(r.raised, 0) end"
            b" return r end end"
        )
        self._api[b"call"] = wrap(self._call)
        self._api[b"pcall"] = self._protected

    def evalsha(self, digest: bytes, *args: bytes) -> Any:
        """Run what was loaded. Raises RedisError."""
        if digest not in self._loaded:
            raise RedisError("NOSCRIPT No matching script. Please use EVAL.")
        return self._run(self._loaded[digest], args)

    def eval(self, source: bytes, *args: bytes) -> Any:
        """Load and run."""
        digest = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        if digest not in self._loaded:
            body = source.split(b"\n", 1)[1] if source.startswith(b"#!") else source
            self._loaded[digest] = self._lua.execute(WRAP % body)
        return self._run(self._loaded[digest], args)

    def _run(self, function: Any, args: Sequence[bytes]) -> Any:
        count = int(args[0])
        keys, given = args[1 : 1 + count], args[1 + count :]
        try:
            reply = function(
                self._lua.table_from(keys), self._lua.table_from(given), self._api, self._cjson
            )
        except LuaError as error:
            raise RedisError(_words(error)) from error
        return _reply(reply)

    def _call(self, *args: Any) -> Any:
        try:
            return self._lua_value(self._redis.execute([_bytes(each) for each in args]))
        except RedisError as error:
            return self._lua.table_from({b"raised": str(error).encode()})

    def _protected(self, *args: Any) -> Any:
        try:
            return self._lua_value(self._redis.execute([_bytes(each) for each in args]))
        except RedisError as error:
            return self._lua.table_from({b"err": str(error).encode()})

    def _lua_value(self, reply: Any) -> Any:
        """As Redis converts its replies to Lua."""
        if reply is None:
            return False
        if isinstance(reply, Simple):
            return self._lua.table_from({b"ok": bytes(reply)})
        if isinstance(reply, list | tuple):
            return self._lua.table_from([self._lua_value(each) for each in reply])
        return reply

    def _decode(self, given: bytes) -> Any:
        return self._lua_json(json.loads(given))

    def _lua_json(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._lua.table_from({k.encode(): self._lua_json(v) for k, v in value.items()})
        if isinstance(value, list):
            return self._lua.table_from([self._lua_json(each) for each in value])
        return value.encode() if isinstance(value, str) else value


def _words(error: LuaError) -> str:
    said = error.args[0] if error.args else ""
    return (said.decode() if isinstance(said, bytes) else str(said)).splitlines()[0]


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, float) and value == int(value):
        value = int(value)
    return str(value).encode()


def _reply(value: Any) -> Any:
    """As Redis converts what a script returns."""
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, float | int):
        return int(value)
    if lua_type(value) != "table":
        return value
    if value[b"err"] is not None:
        raise RedisError(value[b"err"].decode())
    if value[b"ok"] is not None:
        return Simple(value[b"ok"])
    found, at = [], 1
    while (item := value[at]) is not None:
        found.append(_reply(item))
        at += 1
    return found
