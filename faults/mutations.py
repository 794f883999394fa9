"""Mutations of files: bits, slices, numbers, and JSON values."""

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

NUMBERS = (0, 1, -1, 127, 128, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1)
VALUES = (
    *(None, True, "", "a", [], {}, 0, -1, 1.5, 1e308, -0.0, 2**31, 2**63, 10**12, 10**400),
    *(float("nan"), float("inf"), [[]] * 3, [0] * 1000, {"name": "Chain", "arguments": {}}),
    *(
        "\x00",
        "\x1b[31m",
        "</script><script>alert(1)</script>",
        "../../../etc/passwd",
        "a" * 10**5,
    ),
    *("\ud800", "\u2028", "NaN", "1e999", "__class__", "os.system"),
)


def mutated(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Returns bytes after one to four random mutations; `other` is used for splicing."""
    for _ in range(chance.randint(1, 4)):
        content = chance.choice(_OF_BYTES)(content, other, chance)
    return content


def mutated_json(content: bytes, chance: random.Random) -> bytes:
    """Returns JSON, or a line of JSON lines, with one to three changed values."""
    lines = content.splitlines() if content.count(b"\n{") else [content]
    place = chance.randrange(len(lines))
    parsed = json.loads(lines[place])
    for _ in range(chance.randint(1, 3)):
        parsed = _changed(parsed, chance)
    lines[place] = json.dumps(parsed).encode()
    return b"\n".join(lines)


def _flipped(content: bytes, other: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8) if changed else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut_short(content: bytes, other: bytes, chance: random.Random) -> bytes:
    return content[: chance.randint(0, len(content))]


def _without_a_slice(content: bytes, other: bytes, chance: random.Random) -> bytes:
    start, end = _slice(content, chance)
    return content[:start] + content[end:]


def _with_a_slice_again(content: bytes, other: bytes, chance: random.Random) -> bytes:
    start, end = _slice(content, chance)
    return content[:end] + content[start:end] * chance.choice((1, 1, 2, 50)) + content[end:]


def _spliced(content: bytes, other: bytes, chance: random.Random) -> bytes:
    start, end = _slice(other, chance)
    place = chance.randint(0, len(content))
    return content[:place] + other[start:end] + content[place:]


def _with_a_number(content: bytes, other: bytes, chance: random.Random) -> bytes:
    form, size = chance.choice((("<B", 1), ("<H", 2), ("<I", 4), (">I", 4), ("<Q", 8), (">Q", 8)))
    number = chance.choice(NUMBERS) % 2 ** (8 * size)
    place = chance.randint(0, max(0, min(len(content), chance.choice((64, 10**9))) - size))
    return content[:place] + struct.pack(form, number) + content[place + size :]


def _with_digits(content: bytes, other: bytes, chance: random.Random) -> bytes:
    places = [i for i, byte in enumerate(content[:10_000]) if 48 <= byte < 58]
    if not places:
        return content
    place = chance.choice(places)
    return content[:place] + str(chance.choice(NUMBERS)).encode() + content[place + 1 :]


_OF_BYTES: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    *(_flipped, _cut_short, _without_a_slice, _with_a_slice_again, _spliced, _with_a_number),
    _with_digits,
)


def _slice(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randint(0, len(content))
    return start, min(len(content), start + chance.choice((1, 4, 16, 256, 4096)))


def _changed(content: Any, chance: random.Random) -> Any:  # noqa: ANN401
    """Returns JSON values in which a key or a value is changed, removed, or nested deeper."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    if not places:
        return chance.choice(VALUES)
    holder, key = chance.choice(places)
    kind = chance.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[str(chance.choice(VALUES))[:50]] = holder.pop(key)
    elif kind == 2:
        for _ in range(chance.choice((1, 10, 100))):
            holder[key] = chance.choice(([holder[key]], {"a": holder[key]}))
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    if isinstance(content, dict | list):
        for key, value in list(
            content.items() if isinstance(content, dict) else enumerate(content)
        ):
            yield content, key
            yield from _places(value)
