"""Escaping of U+0000 is one to one and leaves no U+0000."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from storage.text import escape, unescape

TEXT = st.text(alphabet=st.sampled_from("\0\x1a01ab\ud7ff"))


class TextTests(SynchronousTestCase):
    """`escape` and `unescape`."""

    @given(TEXT)
    def test_round_trip(self, text: str) -> None:
        """Unescaping gives back any text, and no stored form holds U+0000 (security: F16)."""
        self.assertNotIn("\0", escape(text))
        self.assertEqual(unescape(escape(text)), text)

    @given(TEXT, TEXT)
    def test_equality_is_kept(self, one: str, other: str) -> None:
        """Different texts have different stored forms."""
        self.assertEqual(escape(one) == escape(other), one == other)

    def test_ordinary_text_is_itself(self) -> None:
        """Text without the two special characters is stored as it is."""
        self.assertEqual(escape("@alice:example.org"), "@alice:example.org")
