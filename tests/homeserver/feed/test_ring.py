"""Tests of the feed's ring."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.feed.ring import ENTRY_BYTES, Ring
from storage.feed import Entry, Kind

some = st.one_of(st.none(), st.integers(1, 3))
kinds = st.sampled_from([Kind.EVENT, Kind.RECEIPT, Kind.ACCOUNT_DATA])
entries = st.lists(st.tuples(kinds, some, some, some), max_size=30)


def latest(all_entries: list[Entry], entry: Entry) -> bool:
    """Tell whether no later receipt is of the same row."""
    name = (entry.room_nid, entry.user_nid, entry.ref)
    return entry.kind != Kind.RECEIPT or not any(
        later.pos > entry.pos
        and later.kind == Kind.RECEIPT
        and (later.room_nid, later.user_nid, later.ref) == name
        for later in all_entries
    )


class RingTests(SynchronousTestCase):
    """The ring against a plain list."""

    @given(entries, st.integers(0, 40), st.integers(1, 30))
    def test_it_gives_what_a_list_would(
        self, rows: list[tuple[Kind, int | None, int | None, int | None]], since: int, room_for: int
    ) -> None:
        """By room, by user and in all, it gives the entries after a position, or says it cannot."""
        ring = Ring(5, room_for * ENTRY_BYTES)
        made = [Entry(pos, kind, 0, room, user, ref) for pos, (kind, room, user, ref) in enumerate(rows, 6)]
        for entry in made:
            ring.append(entry)
        self.assertEqual(ring.last, 5 + len(rows))
        self.assertLessEqual(ring.size, room_for * ENTRY_BYTES)
        kept = made[-room_for:] if made else []
        reaches = since >= ring.last - len(kept)
        wanted = [entry for entry in made if entry.pos > since and latest(made, entry)]
        self.assertEqual(ring.since(since), wanted if reaches else None)
        for number in (1, 2, 3):
            in_room = [entry for entry in wanted if entry.room_nid == number]
            of_user = [entry for entry in wanted if entry.user_nid == number]
            self.assertEqual(ring.room_since(number, since), in_room if reaches else None)
            self.assertEqual(ring.user_since(number, since), of_user if reaches else None)

    def test_it_takes_no_hole(self) -> None:
        """A position that is not the next one is refused."""
        ring = Ring(5, 1 << 20)
        self.assertRaises(AssertionError, ring.append, Entry(7, Kind.EVENT))
