"""Aurora's own Lua scripts, run by Lua 5.1 as the server would, against the model."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from lupa.lua51 import LuaError, LuaRuntime, lua_type

from tests.simulation.redis_keys import RedisError, Simple
from tests.simulation.redis_model import Redis

# The outer function is the script's; what it is given are its own KEYS and ARGV.
WRAP = b"return function(KEYS, ARGV, redis, cjson)\n%s\nend"
# A Lua error tells nothing of its cause, so an error reply comes as a value. Like Redis' own Lua,
# this one has no globals to write: nothing of a run may stay for another.
AROUND = b"""
local call, pcall, decode = ...
local redis, cjson = {pcall = pcall}, {decode = decode}
function redis.call(...)
  local reply = call(...)
  if type(reply) == 'table' and reply.raised then error(reply.raised, 0) end
  return reply
end
setmetatable(_G, {__newindex = function(_, name) error('a global: ' .. tostring(name), 0) end})
return function(script, count, ...)
  local given, keys, argv = {...}, {}, {}
  for i = 1, count do keys[i] = given[i] end
  for i = count + 1, select('#', ...) do argv[i - count] = given[i] end
  return script(keys, argv, redis, cjson)
end
"""


class Scripts:
    """What was loaded into one server."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._loaded: dict[bytes, Any] = {}

    def evalsha(self, digest: bytes, *args: bytes) -> Any:
        """Run what was loaded. Raises RedisError."""
        if digest not in self._loaded:
            raise RedisError("NOSCRIPT No matching script. Please use EVAL.")
        return _interpreter().run(self._loaded[digest], self._redis, args)

    def eval(self, source: bytes, *args: bytes) -> Any:
        """Load and run."""
        digest = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        self._loaded[digest] = _interpreter().compiled(source)
        return _interpreter().run(self._loaded[digest], self._redis, args)


class Interpreter:
    """Lua, for all servers of all seeds: to make and to compile took longer than to run.

    It knows a server only while a script of it runs.
    """

    def __init__(self) -> None:
        self._redis: Redis | None = None
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._enter = self._lua.execute(AROUND, self._call, self._protected, self._decode)
        self._compiled: dict[bytes, Any] = {}

    def compiled(self, source: bytes) -> Any:
        """A script as a function."""
        if source not in self._compiled:
            body = source.split(b"\n", 1)[1] if source.startswith(b"#!") else source
            self._compiled[source] = self._lua.execute(WRAP % body)
        return self._compiled[source]

    def run(self, function: Any, redis: Redis, args: Sequence[bytes]) -> Any:
        """What it returns, as a reply. Raises RedisError."""
        self._redis = redis
        try:
            return _reply(self._enter(function, int(args[0]), *args[1:]))
        except LuaError as error:
            raise RedisError(_words(error)) from error
        finally:
            self._redis = None

    def _call(self, *args: Any) -> Any:
        try:
            return self._execute(args)
        except RedisError as error:
            return self._lua.table_from({b"raised": str(error).encode()})

    def _protected(self, *args: Any) -> Any:
        try:
            return self._execute(args)
        except RedisError as error:
            return self._lua.table_from({b"err": str(error).encode()})

    def _execute(self, args: Sequence[Any]) -> Any:
        """The answer as Redis converts it to Lua."""
        assert self._redis is not None
        reply = self._redis.execute(
            [each if type(each) is bytes else _bytes(each) for each in args]
        )
        if reply is None:
            return False
        if isinstance(reply, list):
            if None in reply:  # never deeper
                reply = [False if each is None else each for each in reply]
            return self._lua.table_from(reply, recursive=True)
        return self._lua.table_from({b"ok": bytes(reply)}) if isinstance(reply, Simple) else reply

    def _decode(self, given: bytes) -> Any:
        return self._lua_json(json.loads(given))

    def _lua_json(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._lua.table_from({k.encode(): self._lua_json(v) for k, v in value.items()})
        if isinstance(value, list):
            return self._lua.table_from([self._lua_json(each) for each in value])
        return value.encode() if isinstance(value, str) else value


@cache
def _interpreter() -> Interpreter:
    return Interpreter()


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
    if type(value) is bytes:
        return value
    if value is None or value is False:
        return None
    if isinstance(value, float | int):  # true is 1
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
