"""Tests of compiled filters."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.sync.filters import (
    MAX_LIMIT,
    MAX_NAMES,
    Filters,
    NamePattern,
    clamp_limit,
    compile_event_filter,
    compile_filter,
)
from protocol.errors import InvalidParam, MatrixError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["room", "timeline", "state", "types", "limit", "rooms", "not_rooms", "senders", "event_fields"]
)
SHAPES = st.recursive(JSON, lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=8)


class CompileTests(SynchronousTestCase):
    """Compiling filters."""

    @given(SHAPES)
    def test_any_json_compiles_or_is_refused(self, value: object) -> None:
        """Any JSON gives a filter or a Matrix error, never a crash (security: D9)."""
        for compile_one in (compile_filter, compile_event_filter):
            with contextlib.suppress(MatrixError):
                compile_one(json.dumps(value))

    @given(st.binary(max_size=40))
    def test_any_bytes_compile_or_are_refused(self, raw: bytes) -> None:
        """Bytes that are no JSON give a Matrix error (security: D9)."""
        with contextlib.suppress(MatrixError):
            compile_filter(raw)

    def test_too_many_names_are_refused(self) -> None:
        """A list of 10^5 names is refused; deep nesting is an error too (security: D9)."""
        for text in (
            json.dumps({"room": {"rooms": ["!r"] * (MAX_NAMES + 1)}}),
            json.dumps({"room": {"timeline": {"types": ["a"] * 100_000}}}),
            '{"room":' * 5000 + "{}" + "}" * 5000,
        ):
            with self.assertRaises(MatrixError):
                compile_filter(text)

    def test_limits_are_clamped(self) -> None:
        """A limit of 10^9 becomes the greatest allowed (security: D9)."""
        compiled = compile_filter('{"room":{"timeline":{"limit":1000000000}}}')
        self.assertEqual(compiled.timeline_limit, MAX_LIMIT)
        self.assertEqual(clamp_limit("1" * 29), MAX_LIMIT)
        for text in ("-1", "x", "", "1.5", "١"):
            with self.assertRaises(InvalidParam):
                clamp_limit(text)

    def test_same_text_gives_the_same_object(self) -> None:
        """Filters compare by identity, and equal texts share one object, within the bound."""
        filters = Filters(size=1)
        first = filters.compile(b"{}")
        self.assertIs(filters.compile(b"{}"), first)
        filters.compile(b'{"room":{}}')
        self.assertIsNot(filters.compile(b"{}"), first)


class MatchingTests(SynchronousTestCase):
    """Applying filters."""

    @given(st.text("ab*", max_size=6), st.text("ab", max_size=8))
    def test_wildcards_match_as_globs(self, pattern: str, name: str) -> None:
        """A star stands for any characters, as in a glob."""
        expected = re.fullmatch(fnmatch.translate(pattern), name) is not None
        self.assertEqual(NamePattern.of([pattern]).matches(name), expected)

    def test_excluding_wins(self) -> None:
        """What is both listed and excluded is excluded."""
        made = compile_event_filter(
            '{"types":["m.*"],"not_types":["m.room.*"],"senders":["@a:x","@b:x"],"not_senders":["@a:x"],'
            '"rooms":["!a","!b"],"not_rooms":["!a"]}'
        )
        self.assertEqual([made.allows_type(t) for t in ("m.x", "m.room.name", "x")], [True, False, False])
        self.assertEqual([made.allows_sender(s) for s in ("@a:x", "@b:x", "@c:x")], [False, True, False])
        self.assertEqual([made.allows_room(r) for r in ("!a", "!b", "!c")], [False, True, False])

    def test_empty_lists_let_nothing_pass(self) -> None:
        """An empty list of types, or a limit of zero, lets nothing pass; an absent one everything."""
        self.assertTrue(compile_event_filter('{"types":[]}').never)
        self.assertTrue(compile_event_filter('{"limit":0}').never)
        self.assertTrue(compile_event_filter("{}").passes_all)

    def test_event_fields_are_paths(self) -> None:
        """Dots part the fields of a path unless escaped."""
        compiled = compile_filter(json.dumps({"event_fields": ["content.body", r"content.m\.x", r"a\\.b"]}))
        self.assertEqual(compiled.event_fields, (("content", "body"), ("content", "m.x"), ("a\\", "b")))
