"""Tests of the grammars of identifiers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from protocol.errors import InvalidParam
from protocol.identifiers import (
    ServerName,
    is_hash_room_id,
    is_ip_literal,
    is_new_localpart,
    localpart_of,
    make_user_id,
    parse_event_id,
    parse_key_id,
    parse_room_alias,
    parse_room_id,
    parse_server_name,
    parse_user_id,
    server_of,
    split_server_name,
)

HASH = "Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg"


class IdentifierTests(SynchronousTestCase):
    """What is an identifier, and what is not."""

    def check(self, parse: Callable[[object], str], good: list[str], bad: list[object]) -> None:
        """Assert that `parse` gives back all of `good` and refuses all of `bad`."""
        for text in good:
            self.assertEqual(parse(text), text)
        for other in bad:
            with self.assertRaises(InvalidParam, msg=repr(other)):
                parse(other)

    def test_server_names(self) -> None:
        """A server name is a DNS name or an address, with or without a port."""
        good = [
            "matrix.org",
            "matrix.org:8888",
            "1.2.3.4",
            "1.2.3.4:1234",
            "[1234:5678::abcd]",
            "[1234:5678::abcd]:5678",
            "[::ffff:1.2.3.4]",
            "MATRIX.org",
            "localhost",
            "a" * 255,
        ]
        bad: list[object] = [
            "",
            ":80",
            "a:",
            "a:123456",
            "a b",
            "ä.org",
            "a/b",
            "[::1",
            "::1",
            "[zz]",
            "[:::]",
        ]
        bad += ["[::1]x", "a@b", "a\n", "\0", "../etc", "a:80:80", "a" * 256, None, 5, ["a"], b"a", "a_b"]
        self.check(parse_server_name, good, bad)

    def test_user_ids(self) -> None:
        """A user ID may have any historical localpart, even an empty one, but no NUL and no surrogate."""
        good = ["@alice:a.org", "@Älice B\n:a.org:80", "@:a.org", "@a/b+c=d:[::1]:80", "@\U0001f980:a"]
        bad: list[object] = ["alice", "@alice", "@alice:", "@a\0:b", "@a\ud800:b", "#a:b", "@a:b:c", "@a:b c"]
        bad += ["@" + "a" * 250 + ":a.org", "@a:[x]", None, "", "@a:b\n"]
        self.check(parse_user_id, good, bad)

    def test_an_identifier_has_at_most_255_bytes(self) -> None:
        """Length is counted in bytes of UTF-8, not in characters (security: F12)."""
        server = ":a.org"
        fits = "@" + "\U0001f980" * 62 + server
        self.assertEqual(len(fits.encode()), 255)
        self.check(parse_user_id, [fits], ["@a" + "\U0001f980" * 62 + server])

    def test_room_ids(self) -> None:
        """A room ID names a server, or is the hash of a create event."""
        good = ["!abc:a.org", "!old room\t:a.org:8448", "!" + HASH, "!:a.org"]
        bad: list[object] = [
            "!abc",
            "!",
            "!" + HASH + "a",
            "!" + HASH[:-1] + "+",
            "abc:a.org",
            "!a:b:c:d",
            "!a\0:b",
        ]
        self.check(parse_room_id, good, [*bad, None, "!" + HASH[:-1], "!" + HASH + "\n"])
        self.assertTrue(is_hash_room_id("!" + HASH))
        self.assertFalse(is_hash_room_id("!abc:a.org"))

    def test_room_aliases(self) -> None:
        """An alias has a localpart and a server."""
        self.check(parse_room_alias, ["#a:b", "#Ä b#!:b.org:1"], ["#a", "#:b", "a:b", "#a\0:b", None, "!a:b"])

    def test_event_ids(self) -> None:
        """An event ID is opaque: old ones name a server, later ones may hold slashes."""
        good = ["$1:a.org", "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", "$" + HASH, "$x"]
        self.check(parse_event_id, good, ["", "$", "x", "$a\0", "$" + "a" * 255, "$a\udfff", None, 7])

    def test_key_ids(self) -> None:
        """A key ID is an algorithm and a name."""
        good = ["ed25519:1", "ed25519:a_B", "ed25519:policy_server", "ed25519:auto-1"]
        self.check(
            parse_key_id, good, ["ed25519", "ed25519:", ":1", 'ed25519:"', "ed25519:\\", "ed25519:a b", None]
        )

    def test_new_localparts(self) -> None:
        """A new account may have lower-case letters, digits and some punctuation."""
        self.assertTrue(is_new_localpart("a.b_c=d-e/f+0"))
        for text in ("", "Alice", "ä", "a b", "a:b", "a\n"):
            self.assertFalse(is_new_localpart(text), repr(text))
        self.assertEqual(make_user_id("alice", ServerName("a.org:80")), "@alice:a.org:80")
        with self.assertRaises(InvalidParam):
            make_user_id("Alice", ServerName("a.org"))
        with self.assertRaises(InvalidParam):
            make_user_id("a" * 250, ServerName("a.org"))

    def test_parts(self) -> None:
        """An identifier is taken apart at its first colon, a server name at its last."""
        self.assertEqual(localpart_of("@a:b:80"), "a")
        self.assertEqual(server_of("@a:b:80"), "b:80")
        self.assertEqual(server_of("$" + HASH), "")
        self.assertEqual(split_server_name(ServerName("a.org")), ("a.org", None))
        self.assertEqual(split_server_name(ServerName("a.org:80")), ("a.org", 80))
        self.assertEqual(split_server_name(ServerName("[::1]")), ("[::1]", None))
        self.assertEqual(split_server_name(ServerName("[::1]:80")), ("[::1]", 80))
        self.assertEqual(
            [is_ip_literal(host) for host in ("1.2.3.4", "[::1]", "a.org", "1.2.3")], [1, 1, 0, 0]
        )
