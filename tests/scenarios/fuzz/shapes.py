"""What the fuzz sends: paths, queries and bodies near to right ones, and such as nothing takes.

Bodies are drawn from the type that the route declares, so that they get past the decoder often enough for
the handler to meet what it did not expect.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any, Union
from urllib.parse import quote

import msgspec
from attrs import frozen
from hypothesis import strategies as st

from homeserver.http.routing import Route
from tests.scenarios.fuzz.words import FIELDS, NAMES, NOISE, QUERY_WORDS

Texts = st.SearchStrategy[str]
JsonStrategy = st.SearchStrategy[Any]

SCALARS: JsonStrategy = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400, 1.5, -0.0, 1e308])
    | st.text(max_size=8)
)


def mostly(right: st.SearchStrategy[Any], wrong: st.SearchStrategy[Any], times: int) -> JsonStrategy:
    """Give what is right so many times as often as what is wrong."""
    return st.sampled_from([right] * times + [wrong]).flatmap(lambda chosen: chosen)


def json_of(texts: Texts) -> JsonStrategy:
    """Give any JSON, with texts and names that may mean something."""
    names = st.sampled_from(NAMES) | texts
    return st.recursive(
        SCALARS | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
        max_leaves=8,
    )


def value_of(kind: Any, texts: Texts) -> JsonStrategy:
    """Give values of a type, one in a few of another."""
    return mostly(_right(kind, texts), json_of(texts), 6)


def _right(kind: Any, texts: Texts) -> JsonStrategy:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _right(arguments[0], texts)
    if origin in (Union, types.UnionType):
        return st.one_of([_right(each, texts) for each in arguments])
    if origin in (list, tuple, set, frozenset):
        return st.lists(value_of(arguments[0], texts), max_size=3)
    if origin in (dict, Mapping):
        return st.dictionaries(texts, value_of(arguments[1], texts), max_size=3)
    if isinstance(kind, type):
        return _plain(kind, texts)
    return json_of(texts)


def _plain(kind: type, texts: Texts) -> JsonStrategy:
    if issubclass(kind, msgspec.Struct):
        fields = {
            field.encode_name: (field.required, value_of(field.type, texts))
            for field in msgspec.structs.fields(kind)
        }
        required = {name: value for name, (needed, value) in fields.items() if needed}
        optional = {name: value for name, (needed, value) in fields.items() if not needed}
        return st.fixed_dictionaries(required, optional=optional)
    if issubclass(kind, Enum):
        return st.sampled_from([each.value for each in kind])
    simple: dict[type, JsonStrategy] = {
        bool: st.booleans(),
        int: st.integers(-10, 10**13),
        float: st.floats(0, 10**9),
        str: texts,
        type(None): st.none(),
        dict: st.dictionaries(st.sampled_from(NAMES) | texts, json_of(texts), max_size=5),
    }
    found = simple.get(kind)
    return json_of(texts) if found is None else found


def bodies_of(kind: Any, texts: Texts, examples: Sequence[Any] = ()) -> st.SearchStrategy[bytes]:
    """Give bodies for a route's declared type, and such as lie near to right ones."""
    noise = st.sampled_from(NOISE)
    if kind is None:
        return st.just(b"") | noise
    if kind is bytes:
        return noise | json_of(texts).map(to_bytes)
    right = value_of(kind, texts).map(to_bytes)
    if examples:
        right = mostly(st.one_of([near(each, texts) for each in examples]).map(to_bytes), right, 3)
    return mostly(right, noise | st.binary(max_size=40), 4)


def to_bytes(value: Any) -> bytes:
    """Write any JSON value, surrogates, infinities and huge numbers too."""
    return json.dumps(value).encode()


@frozen
class Vocabulary:
    """Texts that mean something to the server under test.

    `parts` holds right values for the parameters of paths, `fields` for those of queries.
    """

    texts: Texts
    parts: Mapping[str, Sequence[str]]
    fields: Mapping[str, Sequence[str]]
    needed: Mapping[str, Sequence[str]]
    """Query fields without which an endpoint says nothing, by how its path ends."""


def targets_of(route: Route, words: Vocabulary) -> st.SearchStrategy[str]:
    """Give request targets of a route: mostly right parameters, and any query."""
    pieces = [_piece(piece, words) for piece in route.paths[0].split("/")]
    path = st.tuples(*pieces).map("/".join)
    right = st.sampled_from([(name, value) for name, values in words.fields.items() for value in values])
    wrong = st.tuples(st.sampled_from(FIELDS), st.sampled_from(QUERY_WORDS) | words.texts.map(_quote))
    field = mostly(right, wrong, 2).map(lambda pair: f"{pair[0]}={quote(pair[1], safe='%')}")
    odd = st.sampled_from(["&&&==", "a" * 5000, "%", "&".join(["x=1"] * 300), "?", "=&=", "\xff"])
    names = [name for end, needed in words.needed.items() if route.paths[0].endswith(end) for name in needed]
    whole = [st.sampled_from(words.fields[name]).map(partial("{}={}".format, name)) for name in names]
    query = mostly(st.tuples(*whole, *[field] * 2).map("&".join), odd | st.just(""), 12)
    return st.tuples(path, query).map(lambda pair: f"{pair[0]}?{pair[1]}" if pair[1] else pair[0])


def right_target(route: Route, words: Vocabulary) -> str:
    """Give a right request target."""
    parts = [
        _quote(words.parts[piece.strip("{}*")][0]) if piece.startswith("{") else piece
        for piece in route.paths[0].split("/")
    ]
    return "/".join(parts)


def _piece(piece: str, words: Vocabulary) -> st.SearchStrategy[str]:
    if not piece.startswith("{"):
        return st.just(piece)
    odd = st.sampled_from(["%FF", "%ED%A0%80", "%2F", "%00", "%", "%zz", "%C0%AF"])
    known = st.sampled_from(words.parts.get(piece.strip("{}*"), [""])).map(_quote)
    return mostly(known, words.texts.map(_quote) | odd, 7)


def _quote(text: str) -> str:
    return quote(text, safe="@!:$#", errors="surrogatepass")


def altered(value: Any, texts: Texts) -> JsonStrategy:
    """Give a JSON value with one part of it, at any depth, exchanged, gone or doubled."""
    places = list(_places(value, ())) or [()]
    return st.tuples(st.sampled_from(places), SCALARS | json_of(texts), st.booleans()).map(
        lambda change: _exchange(value, change[0], change[1], change[2])
    )


def near(value: Any, texts: Texts) -> JsonStrategy:
    """Give a JSON value as it is, or with one or two parts altered."""
    once = altered(value, texts)
    return mostly(once, st.just(value) | once.flatmap(lambda other: altered(other, texts)), 2)


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in inner:
        yield (*path, name)
        yield from _places(child, (*path, name))


def each_altered(value: Any, others: Sequence[Any]) -> Iterator[Any]:
    """Give a JSON value as often as it has parts, each part in turn exchanged for each of `others`."""
    for path in _places(value, ()):
        for other in others:
            yield _exchange(value, path, other, remove=False)


def _exchange(value: Any, path: tuple[Any, ...], new: Any, remove: bool) -> Any:
    if not path:
        return new
    copied = value.copy()
    if len(path) == 1 and remove and isinstance(new, bool):
        del copied[path[0]]
    else:
        copied[path[0]] = _exchange(copied[path[0]], path[1:], new, remove)
    return copied
