"""Entries as a broken or hostile producer writes them, made from valid ones by the seed.

A stranger to the product: it knows the wire (design section 2) and the standard library's JSON.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

Pairs = list[tuple[bytes, bytes]]  # an entry's fields in order; a name may stand twice

DEEP = 100_000
LONG = 300 * 1024  # bytes, past the limit of one message
HUGE = 1_200 * 1024  # bytes, past what a reader looks into
MOMENTS = (
    "yesterday", "", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-02-30",
    "1e9", "9" * 40, "2026-01-01T00:00:00", "-0001-01-01T00:00:00Z", "2026-01-01T25:00:00Z",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**63, 10**30, 1.5, -1e308, "", "x", "\0", "x" * 5_000, [],
    [[]], {}, {"": None}, [1, "a", None], {"a": {"b": [1]}}, "\U0001f4a3", "a\x1e\x1fb", *MOMENTS,
)  # fmt: skip
# JSON texts that the standard library would not write.
TEXTS = (
    b"1e400", b"-1e400", b"NaN", b"Infinity", b'"\\ud800"', b'"\\udc00\\ud800"', b"01", b"+1",
    b"'x'", b'"\xff\xfe"', b'"\\u0000"', b"1" * 4_299, b"1" * 5_000, b"[" * DEEP,
    b'{"a":' * DEEP, b"[" * 150 + b"]" * 150, b"1e-400", b"undefined", b"{,}",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One entry to be written, and how it was made."""

    how: str
    fields: Pairs


def valid(data: dict[str, Any], rng: Random) -> Pairs:
    """What an honest producer writes."""
    return [
        (b"id", new_id(rng).encode()),
        (b"timestamp", datetime.now(UTC).isoformat().encode()),
        (b"data", json.dumps(data).encode()),
    ]


def new_id(rng: Random) -> str:
    """A UUID out of the seed."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def mutated(data: dict[str, Any], rng: Random) -> Entry:
    """A valid entry with this `data`, and one to three things done to it."""
    pairs = valid(data, rng)
    told = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        how = rng.choice(HOWS)
        pairs = how(pairs, rng)
        told.append(how.__name__.strip("_"))
    return Entry("+".join(told), pairs)


def _flip(pairs: Pairs, rng: Random) -> Pairs:
    def flipped(value: bytes) -> bytes:
        found = bytearray(value)
        for _ in range(rng.randint(1, 4)):
            if found:
                found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        return bytes(found)

    return _one_value(pairs, rng, flipped)


def _cut(pairs: Pairs, rng: Random) -> Pairs:
    return _one_value(pairs, rng, lambda value: value[: rng.randint(0, len(value))])


def _insert(pairs: Pairs, rng: Random) -> Pairs:
    what = rng.choice((b"\0", b"\xff\xfe", b"\x1e\x1f", rng.randbytes(8), b"}", b'"', b"\\"))

    def inserted(value: bytes) -> bytes:
        at = rng.randint(0, len(value))
        return value[:at] + what + value[at:]

    return _one_value(pairs, rng, inserted)


def _double(pairs: Pairs, rng: Random) -> Pairs:
    def doubled(value: bytes) -> bytes:
        start = rng.randint(0, len(value))
        return value + value[start : start + rng.randint(0, 64)]

    return _one_value(pairs, rng, doubled)


def _swap(pairs: Pairs, rng: Random) -> Pairs:
    values = [value for _, value in pairs]
    rng.shuffle(values)
    return [(name, value) for (name, _), value in zip(pairs, values, strict=True)]


def _drop_field(pairs: Pairs, rng: Random) -> Pairs:
    gone = rng.randrange(len(pairs)) if pairs else 0
    # Redis takes no entry without a field.
    return [each for i, each in enumerate(pairs) if i != gone] or [(b"", b"")]


def _extra_field(pairs: Pairs, rng: Random) -> Pairs:
    name = rng.choice((b"version", b"producer", b"signature", b"\xff", b"x" * 70_000, b"", b"data"))
    return [*pairs, (name, rng.choice((b"", b"\xff" * 70_000, rng.randbytes(20), b"2")))]


def _many_fields(pairs: Pairs, rng: Random) -> Pairs:
    return [*pairs, *((f"f{i}".encode(), rng.randbytes(40)) for i in range(1_000))]


def _wrong_id(pairs: Pairs, rng: Random) -> Pairs:
    given = rng.choice((b"", b"17", b"\xff" * 36, b"{" + b"0" * 32 + b"}", b"x" * 5_000, b"0" * 36))
    return [(name, given if name == b"id" else value) for name, value in pairs]


def _wrong_time(pairs: Pairs, rng: Random) -> Pairs:
    given = rng.choice(MOMENTS).encode()
    return [(name, given if name == b"timestamp" else value) for name, value in pairs]


def _too_long(pairs: Pairs, rng: Random) -> Pairs:
    padding = " " * rng.choice((LONG, HUGE))
    return _in_data(pairs, lambda data: data | {"padding": padding})


def _another_type(pairs: Pairs, rng: Random) -> Pairs:
    return _in_data(pairs, lambda data: _replaced(data, rng, rng.choice(OTHERS)))


def _another_moment(pairs: Pairs, rng: Random) -> Pairs:
    name = rng.choice(
        ("run_at", "expires_at", "at", "started_at", "finished_at", "occurred_at", "timestamp")
    )
    return _in_data(pairs, lambda data: data | {name: rng.choice(MOMENTS)})


def _missing_key(pairs: Pairs, rng: Random) -> Pairs:
    def without(data: dict[str, Any]) -> dict[str, Any]:
        gone = rng.choice([*data]) if data else ""
        return {name: value for name, value in data.items() if name != gone}

    return _in_data(pairs, without)


def _extra_key(pairs: Pairs, rng: Random) -> Pairs:
    name = rng.choice(
        ("extra", "tenant", "queue", "priority", "attempt", "crashes", "metadata", "output",
         "error", "dead_letter", "sequence", "producer", "idempotency_key", "parent_id", "")
    )  # fmt: skip
    return _in_data(pairs, lambda data: data | {name: rng.choice(OTHERS)})


def _text_in_data(pairs: Pairs, rng: Random) -> Pairs:
    """A JSON text in the place of one value."""
    text = rng.choice(TEXTS)
    return _edited(
        pairs,
        lambda data: json.dumps(_replaced(data, rng, "@here@")).encode().replace(b'"@here@"', text),
    )


def _twice_in_data(pairs: Pairs, rng: Random) -> Pairs:
    """A key that stands twice."""

    def twice(data: dict[str, Any]) -> bytes:
        name, other = rng.choice([*data] or [""]), json.dumps(rng.choice(OTHERS))
        return json.dumps(data).encode()[:-1] + f",{json.dumps(name)}:{other}}}".encode()

    return _edited(pairs, twice)


def _not_an_object(pairs: Pairs, rng: Random) -> Pairs:
    given = rng.choice((b"[]", b"null", b"1", b'"x"', b"", b"true", *TEXTS))
    return _edited(pairs, lambda _: given)


def _one_value(pairs: Pairs, rng: Random, change: Callable[[bytes], bytes]) -> Pairs:
    # Mostly the body: there is more to get wrong.
    bodies = [i for i, (name, _) in enumerate(pairs) if name == b"data"]
    any_at = rng.randrange(len(pairs))
    at = bodies[0] if bodies and rng.random() < 0.7 else any_at
    return [(name, change(value) if i == at else value) for i, (name, value) in enumerate(pairs)]


def _in_data(pairs: Pairs, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Pairs:
    return _edited(pairs, lambda data: json.dumps(change(data)).encode())


def _edited(pairs: Pairs, change: Callable[[dict[str, Any]], bytes]) -> Pairs:
    """With another body, where the one that there is can still be read."""
    found = []
    for name, value in pairs:
        if name == b"data" and (data := read_object(value)) is not None:
            found.append((name, change(data)))
        else:
            found.append((name, value))
    return found


def _replaced(data: dict[str, Any], rng: Random, other: Any) -> dict[str, Any]:
    """With one value replaced, at the top or in an object within."""
    name = rng.choice([*data] or ["x"])
    inner = data.get(name)
    if isinstance(inner, dict) and inner and rng.random() < 0.7:
        return data | {name: _replaced(inner, rng, other)}
    return data | {name: other}


class Doubled(dict[str, Any]):
    """An object in which a key stands twice: what stood first is not seen any more."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Doubled(found)


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is none of JSON's")


def read_object(raw: bytes) -> dict[str, Any] | None:
    """The JSON object that this is for the standard library, which is laxer than the wire."""
    try:
        found = json.loads(raw.decode(), parse_constant=_no_json, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


HOWS = (
    _flip, _flip, _flip, _cut, _cut, _insert, _insert, _double, _swap, _drop_field, _extra_field,
    _many_fields, _wrong_id, _wrong_time, _too_long, _another_type, _another_type, _another_type,
    _another_moment, _another_moment, _missing_key, _extra_key, _extra_key, _text_in_data,
    _text_in_data, _twice_in_data, _not_an_object,
)  # fmt: skip
