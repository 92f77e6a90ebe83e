"""Tests of reading and writing JSON: strict, lax and of clients."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.canonical_json import (
    check_depth,
    decode,
    decode_client,
    decode_lax,
    dumps,
    encode,
    encode_lax,
)
from protocol.errors import BadJson, MatrixError, NotJson
from tests.protocol.helpers import VECTORS

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)


def json_values(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Give a strategy for JSON values with such numbers."""
    leaves = st.none() | st.booleans() | TEXT | numbers
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


def plain_canonical(value: Any) -> bytes:
    """Write canonical JSON as the specification's own example does."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


class EncodeTests(SynchronousTestCase):
    """Writing canonical JSON."""

    def test_examples_of_the_specification(self) -> None:
        """The examples of the appendix come out as the appendix has them."""
        examples = [
            (b"{}", b"{}"),
            (b'{"one": 1, "two": "Two"}', b'{"one":1,"two":"Two"}'),
            (b'{"b": "2", "a": "1"}', b'{"a":"1","b":"2"}'),
            ('{"a": "日本語"}'.encode(), '{"a":"日本語"}'.encode()),
            ('{"本": 2, "日": 1}'.encode(), '{"日":1,"本":2}'.encode()),
            (b'{"a": "\\u65E5"}', '{"a":"日"}'.encode()),
            (b'{"a": null}', b'{"a":null}'),
            (
                b'{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name":"J",'
                b'"three_pids": [{"medium": "email", "address": "john.doe@example.org"}]}}}',
                b'{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"J",'
                b'"three_pids":[{"address":"john.doe@example.org","medium":"email"}]},"success":true}}',
            ),
        ]
        for given_bytes, wanted in examples:
            self.assertEqual(encode(decode(given_bytes)), wanted)

    def test_vectors_of_synapse(self) -> None:
        """Lax JSON, floats and big integers included, is written as Synapse writes it."""
        for text, wanted in json.loads((VECTORS / "canonical_json.json").read_text(encoding="utf-8")):
            self.assertEqual(encode_lax(decode_lax(text)).decode(), wanted)

    def test_keys_are_sorted_by_code_point(self) -> None:
        """Keys beyond the basic plane come after all others, not by UTF-16 unit (security: K2)."""
        self.assertEqual(
            encode({"\U0001f600": 1, "\uffff": 2, "a": 3, "": 4}),
            '{"":4,"a":3,"\uffff":2,"\U0001f600":1}'.encode(),
        )

    def test_escapes(self) -> None:
        """Only what must be escaped is, and in its shortest form."""
        value = "".join(map(chr, range(0x21))) + '"\\/\x7f\x80\u2028\U0010ffff'
        self.assertEqual(encode(value), plain_canonical(value))

    def test_strict_refuses(self) -> None:
        """Floats, integers out of range, lone surrogates and foreign types are refused (security: F1)."""
        bad: list[Any] = [2**53, -(2**53), 2**63, 2**64, 10**400, 1.0, -0.0, 1.5, float("nan"), float("inf")]
        bad += ["\ud800", {"\udfff": 1}, {1: 2}, {None: 1}, b"x", {1, 2}, object()]
        for value in bad:
            for place in (value, [value], {"a": {"b": [value]}}):
                with self.assertRaises(BadJson, msg=repr(place)):
                    encode(place)
        self.assertEqual(encode([2**53 - 1, 1 - 2**53, True]), b"[9007199254740991,-9007199254740991,true]")

    def test_lax_refuses(self) -> None:
        """What no JSON can hold is refused in old rooms as well."""
        for value in (float("nan"), float("-inf"), "\ud800", {1: 2}, object(), [1.5, {2: 1}], 10**5000):
            with self.assertRaises(BadJson):
                encode_lax(value)

    def test_deep_values_are_written_without_recursion(self) -> None:
        """Nesting past any parser's bound is written all the same (security: D1)."""
        value: Any = 1
        for _ in range(20_000):
            value = [{"a": value}]
        wanted = b'[{"a":' * 20_000 + b"1" + b"}]" * 20_000
        for write in (encode, encode_lax, dumps):
            self.assertEqual(write(value), wanted)

    def test_dumps_takes_what_others_cannot(self) -> None:
        """The hurried writer takes floats, big integers and tuples."""
        self.assertEqual(dumps({"a": 1.5, "b": (1, 2)}), b'{"a":1.5,"b":[1,2]}')
        self.assertEqual(dumps([10**30]), b"[" + str(10**30).encode() + b"]")

    @given(json_values(INTEGERS))
    def test_round_trip(self, value: Any) -> None:
        """What is written is read back the same, and written the same again."""
        raw = encode(value)
        self.assertEqual(decode(raw), value)
        self.assertEqual(encode(decode(raw)), raw)
        self.assertEqual(raw, plain_canonical(value))
        self.assertEqual(encode_lax(value), raw)

    @given(json_values(st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
    def test_lax_round_trip(self, value: Any) -> None:
        """Lax JSON is that of the specification's example in Python, whatever its numbers."""
        raw = encode_lax(value)
        self.assertEqual(raw, plain_canonical(value))
        self.assertEqual(encode_lax(decode_lax(raw)), raw)


class SlackTests(SynchronousTestCase):
    """What is written takes the memory it needs."""

    def test_no_buffer_is_kept(self) -> None:
        """A thousand written events that are kept take little more memory than their bytes."""
        content = {"body": "x" * 300}
        for write in (encode, encode_lax, dumps):
            tracemalloc.start()
            try:
                kept = [write(content) for _ in range(1_000)]
                used, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertLess(used, 1.5 * sum(map(len, kept)))


class DecodeTests(SynchronousTestCase):
    """Reading JSON."""

    readers: tuple[Callable[[bytes], Any], ...] = (decode, decode_lax, decode_client)

    def test_strict_refuses_numbers(self) -> None:
        """Every number but an integer in range is refused, wherever it stands (security: F1)."""
        bad = [
            b"9007199254740992",
            b"-9007199254740992",
            b"9223372036854775808",
            b"1e400",
            b"-0",
            b"1.0",
            b"1e3",
        ]
        bad += [b"1E2", b"-0.0", b"0e0", b"1" + b"0" * 5000, b"1" * 100_000]
        for number in bad:
            for raw in (
                number,
                b"[1, " + number + b"]",
                b'{"depth":' + number + b"}",
                b'{"a":[{"b":' + number + b"}]}",
            ):
                with self.assertRaises(MatrixError, msg=raw[:40]):
                    decode(raw)

    def test_negative_zero_in_a_string_is_text(self) -> None:
        """Only the number -0 is refused, not text that looks like one."""
        raw = b'{"a":"x,-0,","b\\"-0":"2024-01-05","c":-05}'
        with self.assertRaises(NotJson):
            decode(raw)
        self.assertEqual(decode(raw.replace(b"-05", b"-5"))["c"], -5)

    def test_numbers_that_are_let_through(self) -> None:
        """Lax and client JSON may hold floats, lax JSON integers of any size."""
        self.assertEqual(
            decode_lax(b"[1.5,123456789012345678901234567890]"), [1.5, 123456789012345678901234567890]
        )
        self.assertEqual(decode_client(b'{"a":1.5}'), {"a": 1.5})

    def test_what_is_not_text_is_refused(self) -> None:
        """Bad UTF-8 and lone surrogates never get in, by any reader (security: K2)."""
        bad = [
            b'"\xff"',
            b'"\xed\xa0\x80"',
            b'{"\xc0\x80":1}',
            b'"\\ud800"',
            b'"\\udc00\\ud800"',
            b'{"\\udfff":1}',
        ]
        bad += [b'"\xf4\x90\x80\x80"', b'"\\ud800x"', b'"\\uD83D\\u0041"']
        for raw in bad:
            for read in self.readers:
                with self.assertRaises(NotJson, msg=raw):
                    read(raw)
        with self.assertRaises(NotJson):
            decode('"\ud800"')

    def test_what_is_not_json_is_refused(self) -> None:
        """The grammar of JSON is kept: no NaN, no comments, no byte order mark, nothing after the end."""
        bad = [
            b"",
            b"{",
            b"{}x",
            b"{} {}",
            b"NaN",
            b"Infinity",
            b"[1,]",
            b"{'a':1}",
            b"\xef\xbb\xbf{}",
            b'"\n"',
        ]
        bad += [b"01", b"+1", b".5", b"nul", b'{"a"}', b"{1:2}", b'"\\x41"', b"//\n1", b"]", b"[}", b'"abc']
        for raw in bad:
            for read in self.readers:
                with self.assertRaises(MatrixError, msg=raw):
                    read(raw)

    def test_of_duplicate_keys_the_last_wins(self) -> None:
        """A key that comes twice has one value, and only that one is ever written (security: K2)."""
        self.assertEqual(encode(decode(b'{"a":1,"b":2,"a":3,"\\u0061":4}')), b'{"a":4,"b":2}')

    def test_nul_is_a_character(self) -> None:
        """U+0000 is legal in JSON and survives."""
        self.assertEqual(encode(decode(b'{"a\\u0000":"\\u0000"}')), b'{"a\\u0000":"\\u0000"}')


class DepthTests(SynchronousTestCase):
    """The scan before the parser."""

    def test_depth_is_bounded(self) -> None:
        """JSON as deep as allowed is read, one level more is refused (security: D1)."""
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            good = opening * 64 + b"1" + closing * 64
            self.assertIsNotNone(decode(good))
            for read in (decode, decode_client):
                with self.assertRaises(BadJson):
                    read(opening + good + closing)
            self.assertIsNotNone(decode_lax(opening * 512 + b"1" + closing * 512))
            with self.assertRaises(BadJson):
                decode_lax(opening * 513 + b"1" + closing * 513)

    def test_brackets_in_strings_do_not_count(self) -> None:
        """Text may hold any number of brackets, quotes and backslashes."""
        texts = [
            "[" * 1000,
            '"' * 70 + "[" * 70,
            "\\" * 71 + '"[' * 70,
            "]}" * 100 + "[{",
            '\\"[',
            "a\nb\\n[" * 99,
        ]
        for text in texts:
            value = {"a": text, text: [text, {"b": [[text]]}], "z": [[], {}] * 50}
            self.assertEqual(decode(dumps(value)), value)

    def test_hostile_depth_is_refused_by_every_reader(self) -> None:
        """A hundred thousand brackets, closed or not, never reach a parser (security: D1)."""
        for raw in (
            b"[" * 100_000,
            b"[" * 100_000 + b"]" * 100_000,
            b'{"a":' * 100_000,
            b'["\\"",[' * 50_000,
        ):
            for read in (decode, decode_lax, decode_client):
                with self.assertRaises(MatrixError):
                    read(raw)

    def test_many_brackets_side_by_side_are_fine(self) -> None:
        """Breadth is not depth."""
        self.assertEqual(len(decode(b"[" + b",".join([b'[{"a":[]}]'] * 10_000) + b"]")), 10_000)

    @given(json_values(INTEGERS))
    def test_the_scan_agrees_with_the_parser(self, value: Any) -> None:
        """The scan lets a value pass exactly at its true depth."""
        depth = depth_of(value)
        raw = dumps(value)
        check_depth(raw, depth)
        if depth:
            with self.assertRaises(BadJson):
                check_depth(raw, depth - 1)


def depth_of(value: Any) -> int:
    """Give how deep arrays and objects nest."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0
