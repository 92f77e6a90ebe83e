"""Tests of links to users, rooms and events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.errors import InvalidParam
from protocol.identifiers import EventID, RoomAlias, RoomID, ServerName, UserID
from protocol.matrix_uri import MatrixUri, build_matrix_to, build_matrix_uri, parse_matrix_uri

ROOM = RoomID("!somewhere:example.org")
ALIAS = RoomAlias("#somewhere:example.org")
USER = UserID("@alice:example.org")
EVENT = EventID("$event:example.org")
VIA = (ServerName("elsewhere.ca"),)


class MatrixUriTests(SynchronousTestCase):
    """`matrix:` URIs and matrix.to."""

    def test_examples_of_the_specification(self) -> None:
        """The links of the appendix are read, and written as they stand there."""
        for link, uri, address in (
            (
                MatrixUri(ALIAS),
                "matrix:r/somewhere:example.org",
                "https://matrix.to/#/%23somewhere:example.org",
            ),
            (
                MatrixUri(ROOM, None, VIA),
                "matrix:roomid/somewhere:example.org?via=elsewhere.ca",
                "https://matrix.to/#/!somewhere:example.org?via=elsewhere.ca",
            ),
            (
                MatrixUri(ROOM, EVENT, VIA),
                "matrix:roomid/somewhere:example.org/e/event:example.org?via=elsewhere.ca",
                "https://matrix.to/#/!somewhere:example.org/$event:example.org?via=elsewhere.ca",
            ),
        ):
            self.assertEqual(build_matrix_uri(link), uri)
            self.assertEqual(build_matrix_to(link), address)
            self.assertEqual(parse_matrix_uri(uri), link)
            self.assertEqual(parse_matrix_uri(address), link)
        chat = MatrixUri(USER, action="chat")
        self.assertEqual(build_matrix_uri(chat), "matrix:u/alice:example.org?action=chat")
        self.assertEqual(parse_matrix_uri(build_matrix_uri(chat)), chat)
        encoded = "https://matrix.to/#/%21somewhere%3Aexample.org/%24event%3Aexample.org?via=elsewhere.ca"
        self.assertEqual(parse_matrix_uri(encoded), MatrixUri(ROOM, EVENT, VIA))

    def test_elder_forms(self) -> None:
        """Kinds from before the scheme was settled, an authority and a fragment are tolerated."""
        self.assertEqual(parse_matrix_uri("MATRIX:user/alice:example.org#x"), MatrixUri(USER))
        self.assertEqual(parse_matrix_uri("matrix://host/room/somewhere:example.org"), MatrixUri(ALIAS))
        self.assertEqual(
            parse_matrix_uri("matrix:roomid/somewhere:example.org/event/event:example.org"),
            MatrixUri(ROOM, EVENT),
        )

    def test_what_does_not_fit_is_passed_over(self) -> None:
        """Odd arguments are ignored: actions of the wrong kind, servers that are none, unknown names."""
        link = parse_matrix_uri("matrix:u/alice:example.org?action=join&via=a%20b&via=&x=y&action=explode")
        self.assertEqual(link, MatrixUri(USER))
        link = parse_matrix_uri("matrix:r/somewhere:example.org?action=join" + "&via=a.org" * 100)
        self.assertEqual((link.action, len(link.via)), ("join", 20))

    def test_what_is_no_link(self) -> None:
        """Anything else is refused."""
        bad = [
            "",
            "matrix:",
            "matrix:u",
            "matrix:u/",
            "matrix:x/y:z",
            "matrix:u/alice",
            "https://example.org/",
        ]
        bad += [
            "matrix:u/alice:example.org/e/x",
            "matrix:roomid/a:b/x/y",
            "matrix:roomid/a:b/e/",
            "matrix:u/a/b",
        ]
        bad += ["https://matrix.to/#/", "https://matrix.to/#/alice", "https://matrix.to/#/%2Bgroup:a.org"]
        bad += [
            "https://matrix.to/#/@alice:example.org/$x",
            "matrix:u/%ff:a",
            "matrix:r/" + "a" * 5000 + ":b",
        ]
        for text in bad:
            with self.assertRaises(InvalidParam, msg=text):
                parse_matrix_uri(text)

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":\0"), max_size=40))
    def test_round_trip(self, localpart: str) -> None:
        """Whatever an identifier holds, both kinds of link bring it back."""
        for link in (
            MatrixUri(UserID(f"@{localpart}:a.org")),
            MatrixUri(RoomID(f"!{localpart}:a.org"), EventID("$/+")),
        ):
            self.assertEqual(parse_matrix_uri(build_matrix_uri(link)), link)
            self.assertEqual(parse_matrix_uri(build_matrix_to(link)), link)
