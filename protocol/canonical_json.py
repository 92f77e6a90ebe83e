"""The one reader and the one writer of JSON.

Strict JSON is that of room versions 6 and up: integers within ±(2^53 - 1), no floats, no `-0`. Lax JSON
is that of room versions 1 to 5: any integer, and floats in the shortest form that the network's first
server happened to write, so that old hashes still match. Client JSON is ordinary JSON.

A flat scan bounds the nesting before any parser sees the bytes. What cannot be text (bad UTF-8, lone
surrogates) is refused everywhere; of duplicate keys the last wins, and only the parsed form is ever
hashed or kept.

Source: appendices.md, "Canonical JSON".
"""

from __future__ import annotations

import re
from json.encoder import encode_basestring
from typing import Any, NoReturn

import msgspec
import orjson

from protocol.errors import BadJson, NotJson
from protocol.limits import MAX_CLIENT_DEPTH, MAX_INTEGER, MAX_PDU_DEPTH

JsonValue = Any
"""What JSON can hold: None, bool, int, float, str, list, dict with string keys."""
JsonObject = dict[str, Any]


def _refuse_float(_text: str) -> NoReturn:
    raise BadJson("Floats are not allowed here")


_DECODER = msgspec.json.Decoder()
_STRICT_DECODER = msgspec.json.Decoder(float_hook=_refuse_float)
_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'"[]{}')
_STRING = re.compile(rb'"[^"]*+"?')
_STRING_WITH_ESCAPES = re.compile(rb'"[^"\\]*+(?:\\[\s\S][^"\\]*+)*+"?')
_NEGATIVE_ZERO = re.compile(rb"-0(?![0-9.eE])")
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * len(str(MAX_INTEGER))
"""What a number has in it that is out of range, once all its digits are zeros."""
_STRICT = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER


def check_depth(raw: bytes, max_depth: int) -> None:
    """See, without parsing, that no value nests deeper than `max_depth` (security: D1).

    Raises:
        BadJson: it does.
        NotJson: brackets do not pair, so it cannot be JSON.
    """
    if raw.count(b"[") + raw.count(b"{") <= max_depth:
        return
    brackets = _brackets(raw)
    for _ in range(max_depth):
        if not brackets:
            return
        inner_gone = brackets.replace(b"[]", b"")
        if len(inner_gone) == len(brackets):
            raise NotJson("The body is not JSON: its brackets do not pair")
        brackets = inner_gone
    if brackets:
        raise BadJson(f"The JSON nests deeper than {max_depth} levels")


def _brackets(raw: bytes) -> bytes:
    """Give the brackets of `raw` that stand outside of strings, in order, all of them square."""
    if b"\\" in raw:
        raw = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    structure = raw.translate(_TO_BRACKETS, _NOT_STRUCTURE).replace(b'""', b"")
    return _STRING.sub(b"", structure) if b'"' in structure else structure


def decode(raw: bytes | str, *, max_depth: int = MAX_CLIENT_DEPTH) -> JsonValue:
    """Read strict JSON.

    Raises:
        NotJson: not JSON, or not UTF-8.
        BadJson: too deep, a float, `-0`, or an integer out of range.
    """
    data = _as_bytes(raw)
    value = _parse(data, max_depth, _STRICT_DECODER)
    if _LONG_NUMBER in data.translate(_DIGITS_TO_ZERO):  # seldom: most JSON need not be walked through
        check_numbers(value)
    if b"-0" in data and _NEGATIVE_ZERO.search(data):
        _refuse_negative_zero(data)
    return value


def decode_lax(raw: bytes | str, *, max_depth: int = MAX_PDU_DEPTH) -> JsonValue:
    """Read JSON of other servers: integers of any size and floats are let through.

    Raises NotJson, or BadJson where it nests too deep.
    """
    return _parse(_as_bytes(raw), max_depth)


def decode_client(raw: bytes | str, max_depth: int = MAX_CLIENT_DEPTH) -> JsonValue:
    """Read ordinary JSON of a client; raises NotJson, or BadJson where it nests too deep."""
    return _parse(_as_bytes(raw), max_depth)


def decode_own(raw: bytes) -> JsonValue:
    """Read JSON that this server wrote itself: nothing is checked."""
    return _DECODER.decode(raw)


def _as_bytes(raw: bytes | str) -> bytes:
    if isinstance(raw, bytes):
        return raw
    try:
        return raw.encode("utf-8")
    except UnicodeEncodeError:
        raise NotJson("The text holds a lone surrogate") from None


def _parse(raw: bytes, max_depth: int, decoder: msgspec.json.Decoder[Any] = _DECODER) -> JsonValue:
    check_depth(raw, max_depth)
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise BadJson(f"The JSON holds a number out of range: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJson(f"The body is not JSON: {error}") from None
    except RecursionError:
        raise BadJson("The JSON nests too deep") from None


def _refuse_negative_zero(raw: bytes) -> None:
    if _NEGATIVE_ZERO.search(_STRING_WITH_ESCAPES.sub(b'""', raw)):
        raise BadJson("The JSON holds a negative zero")


def check_numbers(value: JsonValue) -> None:
    """See that all numbers of `value`, however deep, are integers within ±(2^53 - 1); raises BadJson."""
    stack = [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is dict:
            stack.extend(item.values())
        elif kind is list or kind is tuple:
            stack.extend(item)
        elif kind is int:
            if not -MAX_INTEGER <= item <= MAX_INTEGER:
                raise BadJson("An integer is out of the range ±(2^53 - 1)")
        elif kind is float:
            raise BadJson("Floats are not allowed here")


def encode(value: JsonValue) -> bytes:
    """Write canonical JSON, strictly.

    Raises BadJson for a float, an integer out of range, a lone surrogate or what JSON cannot hold.
    """
    check_numbers(value)
    return encode_checked(value)


def encode_checked(value: JsonValue) -> bytes:
    """Write canonical JSON of a value whose numbers have been checked."""
    try:
        return _trimmed(orjson.dumps(value, option=_STRICT))
    except TypeError:
        return _encode_slowly(value)


def encode_lax(value: JsonValue) -> bytes:
    """Write canonical JSON as room versions 1 to 5 have it: big integers and floats stay as they are.

    Raises BadJson for NaN, infinity, a lone surrogate or what JSON cannot hold.
    """
    try:
        check_numbers(value)
    except BadJson:
        return _encode_slowly(value)
    return encode_checked(value)


def dumps(value: JsonValue) -> bytes:
    """Write JSON in a hurry: valid, but in no particular order; raises BadJson as `encode_lax` does."""
    try:
        return _trimmed(orjson.dumps(value))
    except TypeError:
        return _encode_slowly(value)


def _trimmed(written: bytes) -> bytes:
    """Copy what orjson wrote: its own bytes keep a buffer of 4 kB at least, and of ten times their length."""
    return bytes(memoryview(written))


class _Text:
    """A piece of finished JSON on the writer's stack, apart from values still to be written."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


_COMMA, _END_LIST, _END_OBJECT = _Text(","), _Text("]"), _Text("}")


def _encode_slowly(value: JsonValue) -> bytes:
    """Write canonical JSON of whatever depth and numbers, without recursion."""
    written: list[str] = []
    stack: list[JsonValue] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, _Text):
            written.append(item.text)
        elif isinstance(item, dict):
            written.append("{")
            stack.extend(_members(item))
        elif isinstance(item, list | tuple):
            written.append("[")
            stack.extend(_elements(item))
        else:
            written.append(_scalar(item))
    try:
        return "".join(written).encode("utf-8")
    except UnicodeEncodeError:
        raise BadJson("A string holds a lone surrogate") from None


def _members(value: JsonObject) -> list[JsonValue]:
    """Give the members of an object and its end, last first."""
    pending: list[JsonValue] = [_END_OBJECT]
    for key in sorted(value, key=_key_order, reverse=True):
        pending += (value[key], _Text(encode_basestring(key) + ":"), _COMMA)
    if len(pending) > 1:
        pending.pop()
    return pending


def _key_order(key: object) -> str:
    if not isinstance(key, str):
        raise BadJson("The keys of an object must be strings")
    return key


def _elements(value: list[JsonValue] | tuple[JsonValue, ...]) -> list[JsonValue]:
    """Give the elements of an array and its end, last first."""
    pending: list[JsonValue] = [_END_LIST]
    for element in reversed(value):
        pending += (element, _COMMA)
    if len(pending) > 1:
        pending.pop()
    return pending


def _scalar(value: JsonValue) -> str:
    """Write what is neither object nor array; raises BadJson for what JSON cannot hold."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return encode_basestring(value)
    try:
        if isinstance(value, int):
            return int.__repr__(value)
        if isinstance(value, float) and value - value == 0.0:
            return float.__repr__(value)
    except ValueError:
        raise BadJson("An integer has too many digits") from None
    raise BadJson(f"JSON cannot hold a {type(value).__name__} of this value")
