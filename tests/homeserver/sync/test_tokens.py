"""Tests of sync and history tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.sync.tokens import (
    MAX_NUMBER,
    EphemeralPlace,
    FeedToken,
    HistoryToken,
    SyncToken,
    parse_history_token,
    parse_sync_token,
    require_known,
)
from protocol.errors import InvalidParam, UnknownPos

NUMBERS = st.integers(0, MAX_NUMBER)
RINGS = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=16)
TOKENS = st.builds(SyncToken, NUMBERS, NUMBERS, NUMBERS, st.builds(EphemeralPlace, RINGS, NUMBERS))


class Positions:
    """A feed that learns of more entries when asked to."""

    def __init__(self, position: int, later: int) -> None:
        """Stand at `position` until `catch_up` moves to `later`."""
        self.position = position
        self._later = later

    async def catch_up(self) -> None:
        """Move to the later position."""
        self.position = self._later


class SyncTokenTests(SynchronousTestCase):
    """Sync tokens."""

    @given(TOKENS)
    def test_text_and_back(self, token: SyncToken) -> None:
        """A sync token survives the way to the client and back."""
        self.assertEqual(parse_sync_token(str(token)), token)

    @given(st.text(max_size=60) | st.from_regex(r"s[0-9_.a-z]{0,60}"))
    def test_any_text_is_a_token_or_an_error(self, text: str) -> None:
        """Any text is read as a token, which then has that very text, or refused (security: D9)."""
        try:
            token = parse_sync_token(text)
        except InvalidParam:
            return
        self.assertTrue(str(token) == text or str(FeedToken(token.epoch, token.pos)) == text)

    def test_numbers_out_of_range_are_refused(self) -> None:
        """A number past 2^63-1, a leading zero or a foreign digit is refused (security: D9)."""
        for text in (
            "s1_9223372036854775808_0_a.0",
            "s1_01_0_a.0",
            "s1_٣_0_a.0",
            "s1_1_0_A.0",
            "s1_1_0_a.0\n",
        ):
            with self.assertRaises(InvalidParam):
                parse_sync_token(text)

    def test_another_epoch_is_refused(self) -> None:
        """A token of an older epoch asks the client to start afresh."""
        failure = self.failureResultOf(_deferred(require_known(1, 5, 2, Positions(9, 9))))
        failure.trap(UnknownPos)

    def test_a_position_beyond_the_feed_is_refused_after_catching_up(self) -> None:
        """A token from the future is refused, one another writer made is not (security: D9)."""
        self.successResultOf(_deferred(require_known(1, 8, 1, Positions(5, 8))))
        self.failureResultOf(_deferred(require_known(1, 9, 1, Positions(5, 8)))).trap(UnknownPos)


class HistoryTokenTests(SynchronousTestCase):
    """History tokens."""

    @given(NUMBERS, NUMBERS)
    def test_both_kinds_are_taken(self, first: int, second: int) -> None:
        """History endpoints read their own tokens and those of sync."""
        self.assertEqual(parse_history_token(f"t{first}_{second}"), HistoryToken(first, second))
        self.assertEqual(parse_history_token(f"s{first}_{second}_7_x.1"), FeedToken(first, second))

    def test_nonsense_is_refused(self) -> None:
        """Anything else is refused (security: D9)."""
        for text in ("", "t", "t1", "t-1_2", "x1_2", "t1_2_3"):
            with self.assertRaises(InvalidParam):
                parse_history_token(text)


def _deferred(coroutine: object) -> object:
    """Run a coroutine as a Deferred."""
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(coroutine)  # type: ignore[arg-type]
