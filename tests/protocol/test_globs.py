"""Tests of the glob matcher."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.errors import InvalidParam
from protocol.globs import Glob, glob_matches
from protocol.limits import MAX_GLOB_LENGTH

PATTERNS = st.text("ab*?B", max_size=10)
TEXTS = st.text("abB", max_size=14)


def by_regex(pattern: str) -> str:
    """Give the regular expression that a glob means."""
    return "".join(
        {"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern.lower()
    )


class GlobTests(SynchronousTestCase):
    """Matching whole texts."""

    def test_stars_and_question_marks(self) -> None:
        """A star is any text, a question mark one character, and all else itself."""
        yes = [("", ""), ("*", ""), ("*", "x"), ("?", "x"), ("a*c", "abc"), ("a*c", "ac"), ("*.a", "b.a")]
        yes += [
            ("a?c*e", "abcde"),
            ("**", ""),
            ("*a*b*", "xaxbx"),
            ("A", "a"),
            ("é*", "Éa"),
            ("[a].$", "[a].$"),
        ]
        no = [
            ("", "x"),
            ("?", ""),
            ("?", "xy"),
            ("a*c", "abcd"),
            ("a", "ab"),
            ("ab*ba", "aba"),
            ("a.c", "abc"),
        ]
        no += [("*?", ""), ("a*a", "a"), ("[ab]", "a"), ("*.a", "a"), ("x*", "ax")]
        for pattern, text in yes:
            self.assertTrue(glob_matches(pattern, text), (pattern, text))
        for pattern, text in no:
            self.assertFalse(glob_matches(pattern, text), (pattern, text))

    @given(PATTERNS, TEXTS)
    def test_it_means_what_a_regular_expression_would(self, pattern: str, text: str) -> None:
        """On short texts the matcher agrees with the expression it replaces."""
        wanted = re.fullmatch(by_regex(pattern), text.lower()) is not None
        self.assertEqual(glob_matches(pattern, text), wanted)

    def test_hostile_patterns(self) -> None:
        """Patterns that drive backtracking matchers mad are answered in one walk (security: D2)."""
        text = "a" * 65_536
        for pattern in ("*a" * 250, "*a" * 250 + "b", "a*" * 250 + "*b", "*" * 511 + "b", "*a?" * 150 + "b"):
            self.assertEqual(glob_matches(pattern, text), not pattern.endswith("b"))
        self.assertFalse(glob_matches("*" + "a" * 500 + "b" + "*", text))
        self.assertFalse(glob_matches("*" + "?a" * 250 + "b*", text))
        self.assertTrue(glob_matches("*" + "?" * 500 + "*", text))

    def test_long_patterns_are_refused(self) -> None:
        """A pattern has a bound (security: D2)."""
        Glob("a" * MAX_GLOB_LENGTH)
        with self.assertRaises(InvalidParam):
            Glob("a" * (MAX_GLOB_LENGTH + 1))


class WordTests(SynchronousTestCase):
    """Matching words within a text."""

    def test_words(self) -> None:
        """A pattern matches whole words, or parts between boundaries, and never half a word."""
        yes = [
            ("cake", "a cake!"),
            ("cake", "CAKE"),
            ("cake", "cake-walk"),
            ("ca*e", "the care"),
            ("c?ke", "coke"),
        ]
        yes += [
            ("a b", "x a b y"),
            ("*", ""),
            ("", ""),
            ("cake*", "cakes"),
            ("ex*ple", "An exciting triple"),
            ("é", "é"),
        ]
        yes += [("@room", "hey @room"), ("@room", "@room!"), ("cake", "cakes cake"), ("*cake", "cupcake")]
        yes += [("aa", "aaa aa"), ("a?a", "xaba aba")]
        no = [
            ("cake", "cakes"),
            ("cake", "cupcake"),
            ("cake", "_cake"),
            ("c?ke", "ckes"),
            ("ex*ple", "exam plea"),
        ]
        no += [("cake", ""), ("ca*e", "cares"), ("a?a", "xaba abax")]
        for pattern, text in yes:
            self.assertTrue(Glob(pattern).matches_words(text), (pattern, text))
        for pattern, text in no:
            self.assertFalse(Glob(pattern).matches_words(text), (pattern, text))

    @given(PATTERNS, st.text("abB _-", max_size=12))
    def test_it_means_some_part_between_boundaries(self, pattern: str, text: str) -> None:
        """On short texts the answer is that of trying every part between two boundaries."""
        text = text.lower()

        def at_boundary(place: int) -> bool:
            beside = text[max(place - 1, 0) : place + 1]
            return place in (0, len(text)) or any(not (one.isalnum() or one == "_") for one in beside)

        places = [place for place in range(len(text) + 1) if at_boundary(place)]
        wanted = any(
            re.fullmatch(by_regex(pattern), text[start:end])
            for start in places
            for end in places
            if start <= end
        )
        self.assertEqual(Glob(pattern).matches_words(text), bool(wanted))

    def test_hostile_patterns(self) -> None:
        """Long texts of almost-matches are walked once (security: D2)."""
        text = "aaaa " * 13_000
        for pattern in ("*a" * 250 + "b", "aaa?b", "a" * 500, "*a?" * 150 + "b", "?" * 500 + "b"):
            self.assertFalse(Glob(pattern).matches_words(text))
